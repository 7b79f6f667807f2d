-- The search functions that enable_semantic_search creates.

-- A function is known as one of an embedding column's by its mark: a comment that begins with
-- "gte-small: for <column>: ". A function that a user made has no such comment, and is never dropped, also
-- if it depends on the extension. Where comments were dropped (pg_dump --no-comments), it is known by its body.
CREATE FUNCTION gte_small.mark(embedding pg_catalog.name) RETURNS pg_catalog.text
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  AS $body$ SELECT 'gte-small: for ' || quote_ident(embedding) $body$;
COMMENT ON FUNCTION gte_small.mark(pg_catalog.name) IS
  'part of enable_semantic_search: the comment by which objects of an embedding column are known';

-- The names of a column's search functions, from the name of the first.
CREATE FUNCTION gte_small.function_names(query_function pg_catalog.text,
    OUT query pg_catalog.text, OUT hybrid pg_catalog.text)
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT query_function, 'hybrid_' || CASE WHEN starts_with(query_function, 'query_') THEN substr(query_function, 7) ELSE query_function END
$body$;
COMMENT ON FUNCTION gte_small.function_names(pg_catalog.text) IS
  'part of enable_semantic_search: the names of the search functions of an embedding column';

-- The names of a table, for generated SQL. The rows of a table with inheritance children are only its own,
-- because its trigger does not fire for other rows.
CREATE FUNCTION gte_small.qualified(
    target pg_catalog.regclass, OUT tbl pg_catalog.text, OUT rows_of pg_catalog.text, OUT schema_name pg_catalog.text)
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT format('%I.%I', n.nspname, c.relname),
         CASE c.relkind WHEN 'r' THEN 'only ' ELSE '' END || format('%I.%I', n.nspname, c.relname),
         quote_ident(n.nspname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target
$body$;
COMMENT ON FUNCTION gte_small.qualified(pg_catalog.regclass) IS
  'part of enable_semantic_search: the qualified names of a table and its rows';

-- The search functions of an embedding column, as they are to be.
--
-- Each kind of argument has two functions. With two arguments, a WHERE outside of the call is pushed
-- down, and a LIMIT outside of it reaches the index. With match_count, each form of call uses the
-- index, also one from an RPC client or in a generic plan. Both functions run the model once.
--
-- The functions are plain SQL, not STRICT and without SET, so that they are inlined. Otherwise each
-- call would scan and sort the whole table. Without SET, every name and operator must be qualified.
-- The bodies say $1 and not the parameter's name, because "embedding" would mean the column. They name
-- only the schema gte_small and the table.
--
-- Reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009) of the nearest vectors and of
-- the rows that share words with the search.
--
-- A word's weight grows with its rarity, unlike in ts_rank. On XQuAD English this full-text part
-- alone has nDCG@10 .97; OR with ts_rank_cd has .88, and AND has .28. It reads at most 201 rows per
-- word from the index; ts_rank would read and parse every row with a common word. A word in more than
-- 200 rows does not count. If more than 200 rows have all words, only those count that are among the
-- nearest vectors. Rows with the same words are ordered by similarity.
--
-- A row is identified by tableoid and ctid, which do not change within one statement. So the table
-- needs no key.
CREATE FUNCTION gte_small.search_functions(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name,
    language pg_catalog.regconfig, query_function pg_catalog.text)
  RETURNS TABLE (name pg_catalog.text, arguments pg_catalog.text, types pg_catalog.text, result pg_catalog.text,
                 attributes pg_catalog.text, body pg_catalog.text, description pg_catalog.text)
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  here record;
  names record;
  form record;
  vec text := gte_small.vector_schema();
BEGIN
  SELECT * INTO here FROM gte_small.qualified(target);
  SELECT * INTO names FROM gte_small.function_names(query_function);
  attributes := 'language sql stable parallel safe';
  name := names.query;
  result := 'setof ' || here.tbl;
  FOR form IN
    SELECT * FROM (VALUES
      (format('embedding %s.vector', vec), format('%s.vector', vec), '$1', 'vector'),
      ('search pg_catalog.text', 'pg_catalog.text', 'gte_small.embed_query($1)', 'text')
    ) AS forms (argument, type, vector, kind)
  LOOP
    arguments := form.argument || ', match_threshold pg_catalog.float8';
    types := form.type || ', pg_catalog.float8';
    description := format('rows by similarity to a %s, the most similar first, those above match_threshold', form.kind);
    body := format($sql$
with q as materialized (select %2$s as v)
select e.* from %1$s e
where gte_small.distance(e.%3$I, (select v from q))
  operator(pg_catalog.<) operator(pg_catalog.-) coalesce($2, '-infinity')
order by gte_small.distance(e.%3$I, (select v from q))
$sql$, here.rows_of, form.vector, embedding);
    RETURN NEXT;

    -- The filter follows the sort key, so LIMIT inside and threshold outside give the same rows
    -- as the other way round. "+ 0" sorts again what hnsw.iterative_scan = relaxed_order returns
    -- out of order.
    arguments := arguments || ', match_count pg_catalog.int4';
    types := types || ', pg_catalog.int4';
    description := format('the match_count rows most similar to a %s, of them those above match_threshold', form.kind);
    body := format($sql$
select (s.r).* from (
  select (e.*)::%1$s as r, gte_small.distance(e.%4$I, (select %3$s)) as d
  from %2$s e order by d limit $3) s
where s.d operator(pg_catalog.<) operator(pg_catalog.-) coalesce($2, '-infinity')
order by s.d operator(pg_catalog.+) 0::pg_catalog.float8
$sql$, here.tbl, here.rows_of, form.vector, embedding);
    RETURN NEXT;
  END LOOP;

  name := names.hybrid;
  arguments := 'search pg_catalog.text, match_count pg_catalog.int4 default 10, full_text_weight pg_catalog.float8 default 1, '
               'semantic_weight pg_catalog.float8 default 1, rrf_k pg_catalog.int4 default 60';
  types := 'pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4';
  result := format('table (item %s, full_text_rank pg_catalog.int8, semantic_rank pg_catalog.int8, score pg_catalog.float8)', here.tbl);
  description := 'rows by meaning and by words: reciprocal rank fusion of semantic and full-text search';
  body := format($sql$
with q as materialized (
  select gte_small.embed_query($1) as v,
         greatest(coalesce($2, 10)::pg_catalog.int8 operator(pg_catalog.*) 2, 60) as depth),
semantic as (
  select s.part, s.place, s.d, pg_catalog.rank() over (order by s.d) as position
  from (select e.tableoid as part, e.ctid as place, gte_small.distance(e.%4$I, (select v from q)) as d
        from %1$s e order by d limit (select depth from q)) s
  where s.d is not null),
words as materialized (
  select pg_catalog.concat('''', pg_catalog.replace(pg_catalog.replace(w.word, E'\\', E'\\\\'), '''', E'\\'''), '''') as word
  from pg_catalog.unnest(pg_catalog.tsvector_to_array(
    pg_catalog.to_tsvector(%3$L::pg_catalog.regconfig, pg_catalog."left"($1, 10000)))) w (word)
  order by pg_catalog.length(w.word) desc limit 32),
terms as materialized (
  select w.word::pg_catalog.tsquery as term, false as is_whole from words w
  union all
  select pg_catalog.string_agg(w.word, ' & ')::pg_catalog.tsquery, true from words w),
found as materialized (
  select f.part, f.place, f.d, t.is_whole, pg_catalog.count(*) over (partition by t.term, t.is_whole) as n
  from terms t cross join lateral (
    select e.tableoid as part, e.ctid as place, gte_small.distance(e.%4$I, (select v from q)) as d from %1$s e
    where %2$s operator(pg_catalog.@@) t.term limit 201) f),
hits as (
  select f.part, f.place, f.d, pg_catalog.ln(1::pg_catalog.float8 operator(pg_catalog.+)
    200::pg_catalog.float8 operator(pg_catalog./) f.n::pg_catalog.float8) as weight
  from found f where f.n operator(pg_catalog.<=) 200
  union all
  select s.part, s.place, s.d, pg_catalog.ln(2::pg_catalog.float8)
  from semantic s join %1$s e on e.ctid operator(pg_catalog.=) s.place and e.tableoid operator(pg_catalog.=) s.part, terms t
  where t.is_whole and %2$s operator(pg_catalog.@@) t.term
    and exists (select from found f where f.is_whole and f.n operator(pg_catalog.>) 200)),
full_text as (
  select h.part, h.place, pg_catalog.row_number() over (order by pg_catalog.sum(h.weight) desc, pg_catalog.min(h.d)) as position
  from hits h group by h.part, h.place order by position limit (select depth from q)),
fused as (
  select r.part, r.place, pg_catalog.max(r.full_text) as full_text, pg_catalog.max(r.semantic) as semantic, pg_catalog.sum(r.score) as score
  from (
    select t.part, t.place, t.position as full_text, null::pg_catalog.int8 as semantic, coalesce($3, 1)
      operator(pg_catalog./) (greatest(coalesce($5, 60), 0) operator(pg_catalog.+) t.position)::pg_catalog.float8 as score
    from full_text t
    union all
    select s.part, s.place, null, s.position, coalesce($4, 1)
      operator(pg_catalog./) (greatest(coalesce($5, 60), 0) operator(pg_catalog.+) s.position)::pg_catalog.float8
    from semantic s) r
  group by r.part, r.place
  order by score desc, semantic, full_text limit coalesce($2, 10))
select (e.*)::%5$s, f.full_text, f.semantic, f.score
from fused f join %1$s e on e.ctid operator(pg_catalog.=) f.place and e.tableoid operator(pg_catalog.=) f.part
order by f.score desc, f.semantic, f.full_text
$sql$, here.rows_of, gte_small.words_expression(content, language, true), gte_small.config(language), embedding, here.tbl);
  RETURN NEXT;
END
$body$;
COMMENT ON FUNCTION gte_small.search_functions(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig, pg_catalog.text) IS
  'part of enable_semantic_search: the search functions of an embedding column as they are to be';

-- Whether a function has one of the bodies that 0.1.0 generated. Names are replaced before the comparison.
CREATE FUNCTION gte_small.is_body_of_0_1_0(body pg_catalog.text, target pg_catalog.regclass, embedding pg_catalog.name)
  RETURNS pg_catalog.bool
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT encode(sha256(convert_to(regexp_replace(regexp_replace(replace(replace(replace(replace(body,
           'only ' || q.tbl, '<table>'), q.tbl, '<table>'),
           format('e.%I operator(%s.<#>)', embedding, gte_small.vector_schema()), '<distance>'),
           gte_small.extension_schema() || '.embed_query($1)', '<vector>'),
           'pg_catalog\.to_tsvector\(''[^'']*''::pg_catalog\.regconfig, pg_catalog\."left"\(coalesce\(.*?, 100000\)\)', '<words>', 'g'),
           'pg_catalog\.to_tsvector\(''[^'']*''::pg_catalog\.regconfig, pg_catalog\."left"\(\$1, 10000\)\)', '<search>', 'g'), 'UTF8')), 'hex')
         IN ('695cfc940eb8db16cc36daa536cc42dcc323de96d2136cb2fa97c7798b21bb99',
             '0aeac6fa664930ff165c72fc7522881e9419d8066b908f38fb69fa3f55cdaa39',
             '79eb990cabec9145653eee0c127b022437453c8f4b879646df3f347188607233',
             '850f03494d45a1a91624e8867efbad8d3e1261e577f24233ebf8b45c3265e298',
             '31e3cbce4de95742fbaf998e886fbcad213e03666d41d6cdd03d384c4eca39ab')
    FROM gte_small.qualified(target) q
$body$;
COMMENT ON FUNCTION gte_small.is_body_of_0_1_0(pg_catalog.text, pg_catalog.regclass, pg_catalog.name) IS
  'part of enable_semantic_search: whether a body is one that version 0.1.0 generated';

-- The search functions that exist for an embedding column, in any schema: those that return the table's rows
-- and have the column's mark, or a comment of 0.1.0, or no comment and the body of such a function.
CREATE FUNCTION gte_small.made_functions(target pg_catalog.regclass, embedding pg_catalog.name)
  RETURNS SETOF pg_catalog.regprocedure
  LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  candidate record;
  content name[] := coalesce((SELECT c.content FROM gte_small.embedding_columns(target) c WHERE c.embedding = embedding LIMIT 1),
                             '{content}');
BEGIN
  FOR candidate IN
    SELECT p.oid, p.proname, p.prosrc, obj_description(p.oid, 'pg_proc') AS mark
      FROM pg_proc p JOIN pg_class c ON c.oid = target AND (p.prorettype = c.reltype OR c.reltype = ANY (p.proallargtypes))
     ORDER BY p.oid
  LOOP
    CONTINUE WHEN NOT CASE
      WHEN candidate.mark IS NULL THEN
        gte_small.is_body_of_0_1_0(candidate.prosrc, target, embedding)
        OR EXISTS (SELECT FROM pg_ts_config t
                     CROSS JOIN LATERAL gte_small.search_functions(target, content, embedding, t.oid, candidate.proname) f
                    WHERE f.body = candidate.prosrc)
      WHEN starts_with(candidate.mark, gte_small.mark(embedding) || ': ') THEN true
      ELSE position(format('e.%I operator(', embedding) IN candidate.prosrc) > 0 AND candidate.mark = ANY (ARRAY[
        'rows by similarity to a vector, the most similar first, those above match_threshold',
        'rows by similarity to a text, the most similar first, those above match_threshold',
        'the match_count rows most similar to a vector, of them those above match_threshold',
        'the match_count rows most similar to a text, of them those above match_threshold',
        'rows by meaning and by words: reciprocal rank fusion of semantic and full-text search']) END;
    RETURN NEXT candidate.oid;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION gte_small.made_functions(pg_catalog.regclass, pg_catalog.name) IS
  'part of enable_semantic_search: the search functions that exist for an embedding column';

-- Refuses, before anything is made, names that are too long or taken. "former" is the column's earlier name.
CREATE FUNCTION gte_small.check_functions(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name, former pg_catalog.name,
    language pg_catalog.regconfig, query_function pg_catalog.text)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  wanted record;
  existing regprocedure;
  ours regprocedure[] := ARRAY(SELECT gte_small.made_functions(target, embedding)
                               UNION ALL SELECT gte_small.made_functions(target, former));
  schema_name text := (SELECT q.schema_name FROM gte_small.qualified(target) q);
BEGIN
  IF query_function = '' THEN
    RAISE EXCEPTION 'search_function is empty'
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Nothing was made.', HINT = 'Leave it out, or name the function.';
  END IF;
  FOR wanted IN SELECT DISTINCT f.name FROM gte_small.search_functions(target, content, embedding, language, query_function) f
                 WHERE octet_length(f.name) > 63 LOOP
    RAISE EXCEPTION 'function name "%" has more than 63 bytes', wanted.name
      USING ERRCODE = 'name_too_long', DETAIL = 'It would be cut short; nothing was made.',
            HINT = 'Choose a shorter one: enable_semantic_search(..., search_function => ''query_docs'').';
  END LOOP;
  FOR wanted IN SELECT * FROM gte_small.search_functions(target, content, embedding, language, query_function) LOOP
    existing := to_regprocedure(format('%s.%I(%s)', schema_name, wanted.name, wanted.types));
    CONTINUE WHEN existing IS NULL;
    IF EXISTS (SELECT FROM pg_proc p WHERE p.oid = existing AND NOT pg_has_role(p.proowner, 'USAGE')) THEN
      RAISE EXCEPTION 'must be owner of function %', existing
        USING ERRCODE = 'insufficient_privilege', DETAIL = 'The table has changed its owner since; nothing was made.',
              HINT = format('A superuser enables the search again, or ALTER FUNCTION %s OWNER TO %I.', existing, current_user);
    ELSIF EXISTS (SELECT FROM gte_small.embedding_columns(target) c
                   WHERE c.embedding <> embedding AND c.embedding IS DISTINCT FROM former
                     AND existing IN (SELECT gte_small.made_functions(target, c.embedding))) THEN
      RAISE EXCEPTION 'function "%" searches another column of table % already', wanted.name, target
        USING ERRCODE = 'duplicate_function', DETAIL = 'Nothing was made.',
              HINT = 'Choose another name: enable_semantic_search(..., search_function => ''query_titles'').';
    ELSIF existing <> ALL (ours) THEN
      RAISE EXCEPTION 'function % exists and is not gte-small''s for this table', existing
        USING ERRCODE = 'duplicate_function', DETAIL = 'It was left as it is; nothing was made.',
              HINT = 'Drop or rename it, or choose another name: enable_semantic_search(..., search_function => ''query_docs'').';
    END IF;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION gte_small.check_functions(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.name, pg_catalog.regconfig, pg_catalog.text) IS
  'part of enable_semantic_search: refuses names of functions that are too long or taken';

-- Makes the search functions of an embedding column, drops those of it that are no longer wanted, and returns
-- what changed. A function gets the table's owner. Its dependence on the extension makes DROP EXTENSION ...
-- CASCADE drop it, and is part of a dump.
CREATE FUNCTION gte_small.make_functions(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name, former pg_catalog.name,
    language pg_catalog.regconfig, query_function pg_catalog.text)
  RETURNS pg_catalog.text[]
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  wanted record;
  one regprocedure;
  before text;
  func text;
  kept regprocedure[] := '{}';
  changed text[] := '{}';
  owner name := (SELECT r.rolname FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = target);
  schema_name text := (SELECT q.schema_name FROM gte_small.qualified(target) q);
  ours regprocedure[] := ARRAY(SELECT gte_small.made_functions(target, embedding)
                               UNION ALL SELECT gte_small.made_functions(target, former));
BEGIN
  FOR wanted IN SELECT * FROM gte_small.search_functions(target, content, embedding, language, query_function) LOOP
    func := format('%s.%I', schema_name, wanted.name);
    one := to_regprocedure(format('%s(%s)', func, wanted.types));
    before := pg_get_functiondef(one) || coalesce(obj_description(one, 'pg_proc'), '');
    -- The body as a literal: a name may have any characters, dollar quotes among them.
    EXECUTE format('CREATE OR REPLACE FUNCTION %s(%s) RETURNS %s %s AS %L',
                   func, wanted.arguments, wanted.result, wanted.attributes, wanted.body);
    one := to_regprocedure(format('%s(%s)', func, wanted.types));
    EXECUTE format('COMMENT ON FUNCTION %s IS %L', one, gte_small.mark(embedding) || ': ' || wanted.description);
    EXECUTE format('ALTER FUNCTION %s DEPENDS ON EXTENSION "gte-small"', one);
    IF owner <> (SELECT r.rolname FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner WHERE p.oid = one) THEN
      EXECUTE format('ALTER FUNCTION %s OWNER TO %I', one, owner);
    END IF;
    kept := kept || one;
    IF before IS DISTINCT FROM pg_get_functiondef(one) || coalesce(obj_description(one, 'pg_proc'), '') THEN
      changed := changed || format('function %s', one);
    END IF;
  END LOOP;
  -- Under an earlier name, with arguments of an earlier version, or in the schema the table was in.
  FOREACH one IN ARRAY ours LOOP
    CONTINUE WHEN one = ANY (kept);
    changed := changed || format('function %s (dropped)', one);
    EXECUTE format('DROP FUNCTION %s', one);
  END LOOP;
  RETURN changed;
END
$body$;
COMMENT ON FUNCTION gte_small.make_functions(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.name, pg_catalog.regconfig, pg_catalog.text) IS
  'part of enable_semantic_search: makes the search functions of an embedding column';
