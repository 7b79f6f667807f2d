-- The indexes and the search functions that enable_semantic_search creates.

-- An index that was created for an embedding column is recognized by its comment, not by its name. An
-- index that the user created has no such comment, and disable_semantic_search keeps it.
CREATE FUNCTION gte_small_indexes(
    target pg_catalog.regclass, embedding pg_catalog.name,
    OUT indexrelid pg_catalog.oid, OUT method pg_catalog.name)
  RETURNS SETOF pg_catalog.record
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT i.indexrelid, m.amname
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
   WHERE i.indrelid = target AND obj_description(i.indexrelid, 'pg_class') = 'gte-small: for ' || quote_ident(embedding)
$body$;
COMMENT ON FUNCTION gte_small_indexes(pg_catalog.regclass, pg_catalog.name) IS
  'part of enable_semantic_search: the indexes it made for an embedding column';

-- The qualified name of a text-search configuration, which does not depend on the search_path.
CREATE FUNCTION gte_small_config(language pg_catalog.regconfig) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT format('%I.%I', n.nspname, t.cfgname) FROM pg_ts_config t JOIN pg_namespace n ON n.oid = t.cfgnamespace
   WHERE t.oid = language
$body$;
COMMENT ON FUNCTION gte_small_config(pg_catalog.regconfig) IS
  'part of enable_semantic_search: the qualified name of a text-search configuration';

-- The expression for the words of a row. The index and the search use the same expression. It reads
-- at most 100,000 characters: a tsvector is limited to 1 MB, and a longer row would be refused.
CREATE FUNCTION gte_small_words(content pg_catalog.name[], language pg_catalog.regconfig, alias pg_catalog.text)
  RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT format('pg_catalog.to_tsvector(%L::pg_catalog.regconfig, pg_catalog."left"(%s, 100000))', @extschema@.gte_small_config(language),
                string_agg(format('coalesce(%s%I::pg_catalog.text, %L)', alias, c, ''),
                           $sep$ operator(pg_catalog.||) E'\n' operator(pg_catalog.||) $sep$ ORDER BY n))
    FROM unnest(content) WITH ORDINALITY AS u (c, n)
$body$;
COMMENT ON FUNCTION gte_small_words(pg_catalog.name[], pg_catalog.regconfig, pg_catalog.text) IS
  'part of enable_semantic_search: the expression of the full-text index';

-- The same expression as the catalogue shows it. With it an index is recognized that has the
-- expression, also one that the user created.
CREATE FUNCTION gte_small_words_shown(
    target pg_catalog.regclass, content pg_catalog.name[], language pg_catalog.regconfig)
  RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  words text;
  one text;
BEGIN
  FOR one IN SELECT format(CASE WHEN a.atttypid = 'text'::regtype THEN 'COALESCE(%I, %L::text)'
                                ELSE 'COALESCE((%I)::text, %L::text)' END, a.attname, '')
               FROM unnest(content) WITH ORDINALITY AS u (c, n)
               JOIN pg_attribute a ON a.attrelid = target AND a.attname = c ORDER BY n LOOP
    words := CASE WHEN words IS NULL THEN one ELSE format('((%s || %L::text) || %s)', words, chr(10), one) END;
  END LOOP;
  RETURN format('to_tsvector(%L::regconfig, "left"(%s, 100000))', language, words);
END
$body$;
COMMENT ON FUNCTION gte_small_words_shown(pg_catalog.regclass, pg_catalog.name[], pg_catalog.regconfig) IS
  'part of enable_semantic_search: the expression of the full-text index as the catalogue shows it';

CREATE FUNCTION gte_small_make_indexes(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name, language pg_catalog.regconfig)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  vec text;
  ours text := 'gte-small: for ' || quote_ident(embedding);
  shown text := @extschema@.gte_small_words_shown(target, content, language);
  outdated oid;
BEGIN
  vec := @extschema@.gte_small_vector_schema();
  -- Inner product: on vectors of unit length it orders as the cosine does, and costs the least.
  IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_opclass c ON c.oid = i.indclass[0] JOIN pg_am m ON m.oid = c.opcmethod
                   JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                  WHERE i.indrelid = target AND a.attname = embedding AND i.indisvalid AND i.indpred IS NULL
                    AND c.opcname = 'vector_ip_ops' AND m.amname = 'hnsw') THEN
    PERFORM @extschema@.gte_small_make_index(target, format('hnsw (%I %s.vector_ip_ops)', embedding, vec), ours);
  END IF;

  -- Of other text, or in another language.
  FOR outdated IN SELECT i.indexrelid FROM @extschema@.gte_small_indexes(target, embedding) i
                    JOIN pg_index x ON x.indexrelid = i.indexrelid
                   WHERE i.method = 'gin' AND pg_get_expr(x.indexprs, x.indrelid) <> shown LOOP
    PERFORM @extschema@.gte_small_drop_index(target, outdated, embedding);
  END LOOP;
  IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
                  WHERE i.indrelid = target AND m.amname = 'gin' AND i.indisvalid AND i.indpred IS NULL
                    AND i.indnatts = 1 AND pg_get_expr(i.indexprs, i.indrelid) = shown) THEN
    PERFORM @extschema@.gte_small_make_index(target,
      format('gin ((%s))', @extschema@.gte_small_words(content, language, '')), ours);
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small_make_indexes(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig) IS
  'part of enable_semantic_search: makes the HNSW and the full-text index, where they are missing';

-- PostgreSQL chooses the name of the index, because a fixed name could be taken.
CREATE FUNCTION gte_small_make_index(target pg_catalog.regclass, definition pg_catalog.text, description pg_catalog.text)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  before oid[] := ARRAY(SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = target);
  made oid;
BEGIN
  EXECUTE format('CREATE INDEX ON %s USING %s', target, definition);
  SELECT i.indexrelid INTO STRICT made FROM pg_index i WHERE i.indrelid = target AND i.indexrelid <> ALL (before);
  EXECUTE format('COMMENT ON INDEX %s IS %L', made::regclass, description);
END
$body$;
COMMENT ON FUNCTION gte_small_make_index(pg_catalog.regclass, pg_catalog.text, pg_catalog.text) IS
  'part of enable_semantic_search: makes an index with a comment';

-- Drops an index that was created for an embedding column. A full-text index is kept if another
-- embedding column has the same text; its comment then names that column.
CREATE FUNCTION gte_small_drop_index(target pg_catalog.regclass, dropped pg_catalog.oid, embedding pg_catalog.name)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  heir name;
BEGIN
  SELECT c.embedding INTO heir
    FROM @extschema@.embedding_columns(target) c
    JOIN pg_ts_config t ON @extschema@.gte_small_config(t.oid) = c.note ->> 'text_search'
    JOIN pg_index i ON i.indexrelid = dropped
   WHERE c.embedding <> embedding
     AND pg_get_expr(i.indexprs, i.indrelid) = @extschema@.gte_small_words_shown(target, c.content, t.oid)
   LIMIT 1;
  IF heir IS NULL THEN
    EXECUTE format('DROP INDEX %s', dropped::regclass);
  ELSE
    EXECUTE format('COMMENT ON INDEX %s IS %L', dropped::regclass, 'gte-small: for ' || quote_ident(heir));
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small_drop_index(pg_catalog.regclass, pg_catalog.oid, pg_catalog.name) IS
  'part of enable_semantic_search: drops an index it made, or leaves it to another embedding column';

-- Sets owner, comment and dependence of a new function. The dependence makes DROP EXTENSION ...
-- CASCADE drop the function, and it is part of a dump.
CREATE FUNCTION gte_small_finish_function(
    target pg_catalog.regclass, signature pg_catalog.text, description pg_catalog.text)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  owner name;
BEGIN
  EXECUTE format('COMMENT ON FUNCTION %s IS %L', signature, description);
  EXECUTE format('ALTER FUNCTION %s DEPENDS ON EXTENSION "gte-small"', signature);
  SELECT r.rolname INTO owner FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = target;
  IF owner <> current_user THEN
    EXECUTE format('ALTER FUNCTION %s OWNER TO %I', signature, owner);
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small_finish_function(pg_catalog.regclass, pg_catalog.text, pg_catalog.text) IS
  'part of enable_semantic_search: owner, comment and dependence of a function it made';

-- The names of a table and of a function in the same schema, for generated SQL. The rows of a table
-- with inheritance children are only its own, because its trigger does not fire for other rows.
CREATE FUNCTION gte_small_qualified(
    target pg_catalog.regclass, function_name pg_catalog.text,
    OUT tbl pg_catalog.text, OUT rows_of pg_catalog.text, OUT func pg_catalog.text)
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT format('%I.%I', n.nspname, c.relname),
         CASE c.relkind WHEN 'r' THEN 'only ' ELSE '' END || format('%I.%I', n.nspname, c.relname),
         format('%I.%I', n.nspname, function_name)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target
$body$;
COMMENT ON FUNCTION gte_small_qualified(pg_catalog.regclass, pg_catalog.text) IS
  'part of enable_semantic_search: the qualified names of a table, its rows and a function beside it';

-- Each kind of argument has two functions. With two arguments, a WHERE outside of the call is pushed
-- down, and a LIMIT outside of it reaches the index. With match_count, each form of call uses the
-- index, also one from an RPC client or in a generic plan. Both functions run the model once.
--
-- The functions are plain SQL, not STRICT and without SET, so that they are inlined. Otherwise each
-- call would scan and sort the whole table. Without SET, every name and operator must be qualified.
-- The body says $1 and not the parameter's name, because "embedding" would mean the column.
CREATE FUNCTION gte_small_make_search(
    target pg_catalog.regclass, embedding pg_catalog.name, function_name pg_catalog.text)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  tbl text;
  rows_of text;
  func text;
  vec text;
  form record;
  body text;
BEGIN
  vec := @extschema@.gte_small_vector_schema();
  SELECT * INTO tbl, rows_of, func FROM @extschema@.gte_small_qualified(target, function_name);
  FOR form IN
    SELECT * FROM (VALUES
      (format('embedding %s.vector', vec), '$1', 'vector'),
      ('search pg_catalog.text', '@extschema@.embed_query($1)', 'text')
    ) AS forms (argument, vector, kind)
  LOOP
    body := format($sql$
with q as materialized (select %2$s as v)
select e.* from %1$s e
where e.%4$I operator(%3$s.<#>) (select v from q)
  operator(pg_catalog.<) operator(pg_catalog.-) coalesce($2, '-infinity')
order by e.%4$I operator(%3$s.<#>) (select v from q)
$sql$, rows_of, form.vector, vec, embedding);
    -- As a literal: a name may have any characters, dollar quotes among them.
    EXECUTE format('create or replace function %s(%s, match_threshold pg_catalog.float8) returns setof %s '
                   'language sql stable parallel safe as %L', func, form.argument, tbl, body);
    PERFORM @extschema@.gte_small_finish_function(target, format('%s(%s, pg_catalog.float8)', func, form.argument),
      format('rows by similarity to a %s, the most similar first, those above match_threshold', form.kind));

    -- The filter follows the sort key, so LIMIT inside and threshold outside give the same rows
    -- as the other way round. "+ 0" sorts again what hnsw.iterative_scan = relaxed_order returns
    -- out of order.
    body := format($sql$
select (s.r).* from (
  select (e.*)::%1$s as r, e.%5$I operator(%4$s.<#>) (select %3$s) as d
  from %2$s e order by d limit $3) s
where s.d operator(pg_catalog.<) operator(pg_catalog.-) coalesce($2, '-infinity')
order by s.d operator(pg_catalog.+) 0::pg_catalog.float8
$sql$, tbl, rows_of, form.vector, vec, embedding);
    EXECUTE format('create or replace function %s(%s, match_threshold pg_catalog.float8, match_count pg_catalog.int4) '
                   'returns setof %s language sql stable parallel safe as %L', func, form.argument, tbl, body);
    PERFORM @extschema@.gte_small_finish_function(target, format('%s(%s, pg_catalog.float8, pg_catalog.int4)', func, form.argument),
      format('the match_count rows most similar to a %s, of them those above match_threshold', form.kind));
  END LOOP;
END
$body$;
COMMENT ON FUNCTION gte_small_make_search(pg_catalog.regclass, pg_catalog.name, pg_catalog.text) IS
  'part of enable_semantic_search: makes the four search functions of an embedding column';

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
CREATE FUNCTION gte_small_make_hybrid(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name,
    language pg_catalog.regconfig, function_name pg_catalog.text)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  tbl text;
  rows_of text;
  func text;
  vec text;
  body text;
BEGIN
  vec := @extschema@.gte_small_vector_schema();
  SELECT * INTO tbl, rows_of, func FROM @extschema@.gte_small_qualified(target, function_name);
  body := format($sql$
with q as materialized (
  select @extschema@.embed_query($1) as v,
         greatest(coalesce($2, 10)::pg_catalog.int8 operator(pg_catalog.*) 2, 60) as depth),
semantic as (
  select s.part, s.place, s.d, pg_catalog.rank() over (order by s.d) as position
  from (select e.tableoid as part, e.ctid as place, e.%5$I operator(%4$s.<#>) (select v from q) as d
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
    select e.tableoid as part, e.ctid as place, e.%5$I operator(%4$s.<#>) (select v from q) as d from %1$s e
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
select (e.*)::%6$s, f.full_text, f.semantic, f.score
from fused f join %1$s e on e.ctid operator(pg_catalog.=) f.place and e.tableoid operator(pg_catalog.=) f.part
order by f.score desc, f.semantic, f.full_text
$sql$, rows_of, @extschema@.gte_small_words(content, language, 'e.'), @extschema@.gte_small_config(language), vec, embedding, tbl);
  EXECUTE format('create or replace function %1$s(search pg_catalog.text, match_count pg_catalog.int4 default 10, '
                 'full_text_weight pg_catalog.float8 default 1, semantic_weight pg_catalog.float8 default 1, '
                 'rrf_k pg_catalog.int4 default 60) returns table (item %2$s, full_text_rank pg_catalog.int8, '
                 'semantic_rank pg_catalog.int8, score pg_catalog.float8) language sql stable parallel safe as %3$L', func, tbl, body);
  PERFORM @extschema@.gte_small_finish_function(target,
    format('%s(pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4)', func),
    'rows by meaning and by words: reciprocal rank fusion of semantic and full-text search');
END
$body$;
COMMENT ON FUNCTION gte_small_make_hybrid(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig, pg_catalog.text) IS
  'part of enable_semantic_search: makes the hybrid search function of an embedding column';
