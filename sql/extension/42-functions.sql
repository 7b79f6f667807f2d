-- The search functions that enable_semantic_search creates.

-- A function is known as one of an embedding column's by its mark: a comment that begins with
-- "gte-small: for <column>: ". A function that a user made has no such comment, and is never dropped, also
-- if it depends on the extension. Where comments were dropped (pg_dump --no-comments), it is known by its body.
CREATE FUNCTION gte_small.mark(embedding pg_catalog.name) RETURNS pg_catalog.text
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
  AS $body$ SELECT 'gte-small: for ' || quote_ident(embedding) $body$;
COMMENT ON FUNCTION gte_small.mark(pg_catalog.name) IS
  'part of enable_semantic_search: the comment by which objects of an embedding column are known';

-- The names of a column's search functions, from the name of the first.
CREATE FUNCTION gte_small.function_names(query_function pg_catalog.text,
    OUT query pg_catalog.text, OUT friendly pg_catalog.text, OUT hybrid pg_catalog.text)
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT query_function, 'search_' || base, 'hybrid_' || base
    FROM (SELECT CASE WHEN starts_with(query_function, 'query_') THEN substr(query_function, 7) ELSE query_function END) AS b (base)
$body$;
COMMENT ON FUNCTION gte_small.function_names(pg_catalog.text) IS
  'part of enable_semantic_search: the names of the search functions of an embedding column';

-- The names of a table, for generated SQL. The rows of a table with inheritance children are only its own,
-- because its trigger does not fire for other rows.
CREATE FUNCTION gte_small.qualified(
    target pg_catalog.regclass, OUT tbl pg_catalog.text, OUT rows_of pg_catalog.text, OUT schema_name pg_catalog.text)
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT format('%I.%I', n.nspname, c.relname),
         CASE c.relkind WHEN 'r' THEN 'only ' ELSE '' END || format('%I.%I', n.nspname, c.relname),
         quote_ident(n.nspname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target
$body$;
COMMENT ON FUNCTION gte_small.qualified(pg_catalog.regclass) IS
  'part of enable_semantic_search: the qualified names of a table and its rows';

-- The columns that search_... returns: those of the table without its embeddings, and the similarity. A name that
-- is a parameter's, or the table's own "similarity", gets "_1" appended, because a function can't have it twice.
-- With "of_hit" the row is n.hit, as in the bodies for Citus, otherwise e.
CREATE FUNCTION gte_small.returned_columns(
    target pg_catalog.regclass, of_hit pg_catalog.bool, OUT expressions pg_catalog.text, OUT definitions pg_catalog.text)
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  one record;
  taken text[] := ARRAY['search', 'match_count', 'match_threshold', 'filter'];
  called text;
BEGIN
  FOR one IN
    SELECT a.attname::text AS name, format('%I.%I', n.nspname, t.typname) AS type, format('%s.%I::%I.%I', CASE WHEN of_hit THEN '(n.hit)' ELSE 'e' END, a.attname, n.nspname, t.typname) AS expression, a.attnum
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace n ON n.oid = t.typnamespace
     WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped
       AND a.attname NOT IN (SELECT c.embedding FROM gte_small.embedding_columns(target) c)
     UNION ALL
    SELECT 'similarity', 'pg_catalog.float8', CASE WHEN of_hit THEN 'least(1, operator(pg_catalog.-) n.d)' ELSE 'least(1, operator(pg_catalog.-) u.d)' END, 32767
     ORDER BY attnum
  LOOP
    called := one.name;
    WHILE called = ANY (taken) OR (called <> one.name AND EXISTS (
      SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = called AND NOT a.attisdropped)) LOOP
      called := called || '_1';
    END LOOP;
    taken := taken || called;
    expressions := concat_ws(', ', expressions, one.expression);
    definitions := concat_ws(', ', definitions, format('%I %s', called, one.type));
  END LOOP;
END
$body$;
COMMENT ON FUNCTION gte_small.returned_columns(pg_catalog.regclass, pg_catalog.bool) IS
  'part of enable_semantic_search: what the function search_... returns';

-- The search functions of an embedding column, as they are to be. They name only the schema gte_small and the
-- table, so what they call can be renewed by an update of the extension.
--
-- With two arguments, a WHERE outside of the call is pushed down, and a LIMIT outside of it reaches the index.
-- These functions are plain SQL, not STRICT and without SET, so that they are inlined. Otherwise each call would
-- scan and sort the whole table. Without SET, every name and operator must be qualified. The bodies say $1 and
-- not the parameter's name, because "embedding" would mean the column.
--
-- With match_count the LIMIT is inside, and inlining gains nothing: nearest_places() finds the rows, which are read
-- once, at the end. tideq() and oideq() are leakproof, so each row is one look-up by its place under row-level
-- security too. All forms run the model once.
CREATE FUNCTION gte_small.search_functions_local(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name,
    language pg_catalog.regconfig, query_function pg_catalog.text)
  RETURNS TABLE (name pg_catalog.text, arguments pg_catalog.text, types pg_catalog.text, result pg_catalog.text,
                 attributes pg_catalog.text, body pg_catalog.text, description pg_catalog.text)
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
#variable_conflict use_variable
DECLARE
  here record;
  names record;
  columns record;
  form record;
  vec text := gte_small.vector_schema();
  key_columns name[] := gte_small.key_columns(target);
  key text := (SELECT string_agg(format('e.%I', k), ', ' ORDER BY n) FROM unnest(key_columns) WITH ORDINALITY AS u (k, n));
  half bool := gte_small.searches_halfvec(target, embedding);
  nearest text := format('gte_small.nearest_places(%L::pg_catalog.regclass, %L, %L, %L, ', target, embedding, key_columns, half);
  rows_at text;
BEGIN
  SELECT * INTO here FROM gte_small.qualified(target);
  SELECT * INTO names FROM gte_small.function_names(query_function);
  SELECT * INTO columns FROM gte_small.returned_columns(target, false);
  rows_at := format('join %s e on e.ctid operator(pg_catalog.=) u.place and e.tableoid operator(pg_catalog.=) u.part', here.rows_of);
  FOR form IN
    SELECT * FROM (VALUES
      (format('embedding %s.vector', vec), format('%s.vector', vec), 'gte_small.unit($1)', 'vector'),
      ('search pg_catalog.text', 'pg_catalog.text', 'gte_small.embed_query($1)', 'text')
    ) AS forms (argument, type, vector, kind)
  LOOP
    name := names.query;
    result := 'setof ' || here.tbl;
    attributes := 'language sql stable parallel safe';
    arguments := form.argument || ', match_threshold pg_catalog.float8 default null';
    types := form.type || ', pg_catalog.float8';
    description := format('rows by similarity to a %s, the most similar first, those above match_threshold', form.kind);
    body := format($sql$
with q as materialized (select %2$s as v, gte_small.bound($2) as bound)
select e.* from %1$s e
where gte_small.below(gte_small.distance(e.%3$I, (select q.v from q)), (select q.bound from q))
order by gte_small.%4$s(e.%3$I, (select q.v from q))%5$s
$sql$, here.rows_of, form.vector, embedding, CASE WHEN half THEN 'half_distance' ELSE 'distance' END,
      CASE WHEN gte_small.sorts_by_index_and_key() THEN ', ' || key ELSE '' END);
    RETURN NEXT;

    attributes := 'language plpgsql stable parallel safe rows 10 cost 100000';
    arguments := form.argument || ', match_threshold pg_catalog.float8, match_count pg_catalog.int4, filter pg_catalog.jsonb default ''{}''';
    types := form.type || ', pg_catalog.float8, pg_catalog.int4, pg_catalog.jsonb';
    description := format('the match_count rows most similar to a %s, of those above match_threshold that pass the filter', form.kind);
    body := format($sql$
begin
  return query select e.*
    from %1$s%2$s, gte_small.count_of($3), gte_small.bound($2), $4, false) n
    cross join rows from (pg_catalog.unnest(n.parts), pg_catalog.unnest(n.places), pg_catalog.unnest(n.distances)) u (part, place, d)
    %3$s
   where u.d operator(pg_catalog.<) gte_small.bound($2)
   order by u.d, %4$s limit gte_small.count_of($3);
end
$sql$, nearest, form.vector, rows_at, key);
    RETURN NEXT;
  END LOOP;

  name := names.friendly;
  arguments := 'search pg_catalog.text, match_count pg_catalog.int4 default 10, match_threshold pg_catalog.float8 default null, '
               'filter pg_catalog.jsonb default ''{}''';
  types := 'pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.jsonb';
  result := format('table (%s)', columns.definitions);
  description := 'the match_count rows most similar to a text, with their similarity, without embeddings';
  body := format($sql$
#variable_conflict use_column
begin
  return query select %1$s
    from %2$sgte_small.embed_query($1), gte_small.count_of($2), gte_small.bound($3), $4, false) n
    cross join rows from (pg_catalog.unnest(n.parts), pg_catalog.unnest(n.places), pg_catalog.unnest(n.distances)) u (part, place, d)
    %3$s
   where u.d operator(pg_catalog.<) gte_small.bound($3)
   order by u.d, %4$s limit gte_small.count_of($2);
end
$sql$, columns.expressions, nearest, rows_at, key);
  RETURN NEXT;

  name := names.hybrid;
  arguments := 'search pg_catalog.text, match_count pg_catalog.int4 default 10, full_text_weight pg_catalog.float8 default 1, '
               'semantic_weight pg_catalog.float8 default 1, rrf_k pg_catalog.int4 default 60, filter pg_catalog.jsonb default ''{}''';
  types := 'pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4, pg_catalog.jsonb';
  result := format('table (item %s, full_text_rank pg_catalog.int8, semantic_rank pg_catalog.int8, score pg_catalog.float8)', here.tbl);
  description := 'rows by meaning and by words: reciprocal rank fusion of semantic and full-text search';
  body := format($sql$
#variable_conflict use_column
begin
  return query select (e.*)::%1$s, u.full_text_rank, u.semantic_rank, u.score
    from gte_small.hybrid_places(%2$L::pg_catalog.regclass, %3$L, %4$L, %5$L, %6$L, %7$L::pg_catalog.regconfig, $1,
           gte_small.embed_query($1), gte_small.count_of($2), $3, $4, $5, $6) u
    %8$s
   order by u.score desc, u.semantic_rank, u.full_text_rank, %9$s
   limit gte_small.count_of($2);
end
$sql$, here.tbl, target, embedding, key_columns, half, content, gte_small.config(language), rows_at, key);
  RETURN NEXT;
END
$body$;
COMMENT ON FUNCTION gte_small.search_functions_local(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig, pg_catalog.text) IS
  'part of enable_semantic_search: the search functions of an embedding column in a database without Citus';

CREATE FUNCTION gte_small.search_functions(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name,
    language pg_catalog.regconfig, query_function pg_catalog.text)
  RETURNS TABLE (name pg_catalog.text, arguments pg_catalog.text, types pg_catalog.text, result pg_catalog.text,
                 attributes pg_catalog.text, body pg_catalog.text, description pg_catalog.text)
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
BEGIN
  IF gte_small.on_citus() THEN
    RETURN QUERY SELECT * FROM gte_small.search_functions_on_citus(target, content, embedding, language, query_function);
  ELSE
    RETURN QUERY SELECT * FROM gte_small.search_functions_local(target, content, embedding, language, query_function);
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.search_functions(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig, pg_catalog.text) IS
  'part of enable_semantic_search: the search functions of an embedding column as they are to be';

-- Whether a function has one of the bodies that 0.1.0 generated. Names are replaced before the comparison.
CREATE FUNCTION gte_small.is_body_of_0_1_0(body pg_catalog.text, target pg_catalog.regclass, embedding pg_catalog.name)
  RETURNS pg_catalog.bool
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
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

-- The search functions that exist for an embedding column, also in a schema that the table was in: those that
-- return the table's rows or its columns, and have the column's mark, or a comment of 0.1.0, or no comment and the body of
-- such a function.
CREATE FUNCTION gte_small.made_functions(target pg_catalog.regclass, embedding pg_catalog.name)
  RETURNS SETOF pg_catalog.regprocedure
  LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
#variable_conflict use_variable
DECLARE
  candidate record;
  content name[] := coalesce((SELECT c.content FROM gte_small.embedding_columns(target) c WHERE c.embedding = embedding LIMIT 1),
                             '{content}');
BEGIN
  FOR candidate IN
    -- Of the table's owner, or in its schema: a comment alone would let any role put functions in the way. The steps
    -- keep the cost linear: with 200 enabled tables, comparing each function with each relation took 1.3 s.
    WITH near AS MATERIALIZED (
      SELECT p.oid, p.proname, p.pronamespace, p.prosrc, p.prorettype = c.reltype OR c.reltype = ANY (p.proallargtypes) AS of_rows,
             p.prorettype = c.reltype AS is_query
        FROM pg_proc p JOIN pg_class c ON c.oid = target AND (p.proowner = c.relowner OR p.pronamespace = c.relnamespace)
       WHERE p.prorettype = c.reltype OR c.reltype = ANY (p.proallargtypes)
          OR p.prosrc LIKE '%from gte_small.nearest_places(%' OR p.prosrc LIKE '%from gte_small.nearest_rows(%'),
    friendly AS MATERIALIZED (
      SELECT q.pronamespace, (gte_small.function_names(q.proname)).friendly FROM near q
       WHERE q.is_query AND starts_with(obj_description(q.oid, 'pg_proc'), gte_small.mark(embedding) || ': '))
    SELECT n.oid, n.proname, n.prosrc, obj_description(n.oid, 'pg_proc') AS mark FROM near n
     -- search_... returns columns. It names the table, or stands beside query_... and names a table that is gone.
     WHERE n.of_rows
        OR position(format('from gte_small.nearest_places(%L::pg_catalog.regclass, %L,', target, embedding) IN n.prosrc) > 0
        OR position(format('from gte_small.nearest_rows(%L::pg_catalog.regclass, %L,', target, embedding) IN n.prosrc) > 0
        OR EXISTS (SELECT FROM friendly f WHERE f.pronamespace = n.pronamespace AND f.friendly = n.proname)
           AND to_regclass(replace(substring(n.prosrc FROM $re$from gte_small\.nearest_(?:places|rows)\(E?'((?:[^']|'')+)'::pg_catalog\.regclass$re$),
                                   '''''', '''')) IS NULL
     ORDER BY n.oid
  LOOP
    CONTINUE WHEN NOT CASE
      WHEN candidate.mark IS NULL THEN
        gte_small.is_body_of_0_1_0(candidate.prosrc, target, embedding)
        OR EXISTS (SELECT FROM pg_ts_config t
                     CROSS JOIN LATERAL gte_small.search_functions(target, content, embedding, t.oid, candidate.proname) f
                    WHERE f.body = candidate.prosrc
                      -- Only this form depends on the language.
                      AND (t.oid = 'simple'::regconfig OR candidate.prosrc LIKE '%hybrid_places%'))
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

-- A function that was made for another table of the same owner, and searches this one: their names were swapped, as
-- when a table is replaced. Its result is of the other table's row type, which a rename does not change, and its body
-- names this one. NULL for any other function.
CREATE FUNCTION gte_small.made_for_another(func pg_catalog.regprocedure, target pg_catalog.regclass, embedding pg_catalog.name)
  RETURNS pg_catalog.regclass
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT k.oid::regclass
    FROM pg_proc p
    JOIN pg_class c ON c.oid = target AND c.relowner = p.proowner
    CROSS JOIN LATERAL gte_small.qualified(target) q
    JOIN pg_class k ON k.relowner = c.relowner AND k.oid <> c.oid AND k.relkind IN ('r', 'p')
                   AND (p.prorettype = k.reltype OR k.reltype = ANY (p.proallargtypes))
   WHERE p.oid = func AND position(q.tbl || ' e' IN p.prosrc) > 0
     AND (starts_with(obj_description(p.oid, 'pg_proc'), 'gte-small: for ') AND p.prosrc LIKE '%gte\_small.%'
          OR gte_small.is_body_of_0_1_0(p.prosrc, target, embedding))
   LIMIT 1
$body$;
COMMENT ON FUNCTION gte_small.made_for_another(pg_catalog.regprocedure, pg_catalog.regclass, pg_catalog.name) IS
  'part of enable_semantic_search: the table that a search function was made for, if it had this table''s name then';

-- Drops a search function. What a user built on it stops that.
CREATE FUNCTION gte_small.drop_function(func pg_catalog.regprocedure) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  users text;
BEGIN
  EXECUTE format('DROP FUNCTION %s', func);
EXCEPTION WHEN dependent_objects_still_exist THEN
  GET STACKED DIAGNOSTICS users = PG_EXCEPTION_DETAIL;
  RAISE EXCEPTION 'function % can''t be dropped, because other objects use it', func
    USING ERRCODE = 'dependent_objects_still_exist', DETAIL = users || E'\nNothing was changed.',
          HINT = 'Drop these objects, call this again, and create them again where the function still exists.';
END
$body$;
COMMENT ON FUNCTION gte_small.drop_function(pg_catalog.regprocedure) IS
  'part of enable_semantic_search and others: drops a search function, or says what uses it';

-- Refuses, before anything is made, names that are too long or taken. "former" is the column's earlier name.
CREATE FUNCTION gte_small.check_functions(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name, former pg_catalog.name,
    language pg_catalog.regconfig, query_function pg_catalog.text)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
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
    ELSIF existing <> ALL (ours) AND gte_small.made_for_another(existing, target, embedding) IS NULL THEN
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
--
-- A function that replaces one of another signature gets the privileges of that one: where a search was
-- revoked from PUBLIC, it stays so.
CREATE FUNCTION gte_small.make_functions(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name, former pg_catalog.name,
    language pg_catalog.regconfig, query_function pg_catalog.text)
  RETURNS pg_catalog.text[]
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
#variable_conflict use_variable
DECLARE
  wanted record;
  granted record;
  one regprocedure;
  definition text;
  before text;
  func text;
  acl aclitem[];
  kept regprocedure[] := '{}';
  taken_from regclass;
  told regclass[] := '{}';
  changed text[] := '{}';
  owner oid := (SELECT c.relowner FROM pg_class c WHERE c.oid = target);
  schema_name text := (SELECT q.schema_name FROM gte_small.qualified(target) q);
  ours regprocedure[] := ARRAY(SELECT gte_small.made_functions(target, embedding)
                               UNION SELECT gte_small.made_functions(target, former));
BEGIN
  FOR wanted IN SELECT * FROM gte_small.search_functions(target, content, embedding, language, query_function) LOOP
    func := format('%s.%I', schema_name, wanted.name);
    -- The body as a literal: a name may have any characters, dollar quotes among them.
    definition := format('CREATE OR REPLACE FUNCTION %s(%s) RETURNS %s %s AS %L',
                         func, wanted.arguments, wanted.result, wanted.attributes, wanted.body);
    one := to_regprocedure(format('%s(%s)', func, wanted.types));
    before := pg_get_functiondef(one) || coalesce(obj_description(one, 'pg_proc'), '');
    acl := NULL;
    taken_from := CASE WHEN one <> ALL (ours) THEN gte_small.made_for_another(one, target, embedding) END;
    IF taken_from IS NOT NULL AND taken_from <> ALL (told) THEN
      told := told || taken_from;
      RAISE NOTICE 'function % was made for table %, which had this name before; it is of table % now', wanted.name, taken_from, target
        USING HINT = format('Where table %s is to be searched too: SELECT enable_semantic_search(%1$L, ...);', taken_from);
    END IF;
    IF one IS NULL THEN
      -- Of the function that is most alike: of the same kind, for the same argument, with a count or without.
      acl := (SELECT p.proacl
                FROM pg_proc p
               WHERE p.oid = ANY (ours)
               -- A function of another role in this schema could have any privileges.
               ORDER BY p.proowner <> owner, CASE WHEN 'item' = ANY (p.proargnames) THEN 'hybrid' WHEN p.prorettype = 'record'::regtype THEN 'search' ELSE 'query' END
                          <> CASE WHEN wanted.result LIKE 'table (item %' THEN 'hybrid' WHEN wanted.result LIKE 'table %' THEN 'search' ELSE 'query' END,
                        p.proargtypes[0] IS DISTINCT FROM to_regtype(split_part(wanted.types, ', ', 1))::oid,
                        ('match_count' = ANY (p.proargnames)) <> (wanted.arguments LIKE '%, match_count %'), p.oid
               LIMIT 1);
      EXECUTE definition;
    ELSE
      BEGIN
        EXECUTE definition;
      EXCEPTION WHEN invalid_function_definition THEN
        -- It returns other columns, or its arguments have other names.
        acl := (SELECT p.proacl FROM pg_proc p WHERE p.oid = one);
        PERFORM gte_small.drop_function(one);
        EXECUTE definition;
      END;
    END IF;
    one := to_regprocedure(format('%s(%s)', func, wanted.types));
    EXECUTE format('COMMENT ON FUNCTION %s IS %L', one, gte_small.mark(embedding) || ': ' || wanted.description);
    -- Citus refuses it.
    IF NOT gte_small.on_citus() THEN
      EXECUTE format('ALTER FUNCTION %s DEPENDS ON EXTENSION "gte-small"', one);
    END IF;
    IF owner <> (SELECT p.proowner FROM pg_proc p WHERE p.oid = one) THEN
      EXECUTE format('ALTER FUNCTION %s OWNER TO %s', one, owner::regrole);
    END IF;
    IF acl IS NOT NULL THEN
      -- Those of the schema's default privileges as well.
      FOR granted IN SELECT DISTINCT a.grantee FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', owner))) a
                      WHERE p.oid = one AND a.grantee <> owner LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s', one,
                       CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END);
      END LOOP;
      FOR granted IN SELECT * FROM aclexplode(acl) a WHERE a.grantee <> owner LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', one,
                       CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END)
                || CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END;
      END LOOP;
    END IF;
    kept := kept || one;
    IF before IS DISTINCT FROM pg_get_functiondef(one) || coalesce(obj_description(one, 'pg_proc'), '') THEN
      changed := changed || format('function %s', one);
    END IF;
  END LOOP;
  -- Under an earlier name, with arguments of an earlier version, or in the schema the table was in.
  FOREACH one IN ARRAY ours LOOP
    CONTINUE WHEN one = ANY (kept) OR NOT EXISTS (SELECT FROM pg_proc p WHERE p.oid = one);
    IF NOT pg_has_role((SELECT p.proowner FROM pg_proc p WHERE p.oid = one), 'USAGE') THEN
      RAISE NOTICE 'function % belongs to another role and was left', one USING HINT = 'Its owner or a superuser can drop it.';
      CONTINUE;
    END IF;
    changed := changed || format('function %s (dropped)', one);
    PERFORM gte_small.drop_function(one);
  END LOOP;
  RETURN changed;
END
$body$;
COMMENT ON FUNCTION gte_small.make_functions(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.name, pg_catalog.regconfig, pg_catalog.text) IS
  'part of enable_semantic_search: makes the search functions of an embedding column';

-- What is wrong with the search functions of a column, NULL if they are those that enable_semantic_search() would make:
-- after an update of the extension, and after the table or a column of it was added, dropped, renamed or changed.
CREATE FUNCTION gte_small.functions_wrong(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name, note pg_catalog.jsonb)
  RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
#variable_conflict use_variable
DECLARE
  ours record;
  here record;
  made oid[];
  wanted record;
  existing regprocedure;
  other regclass;
BEGIN
  SELECT * INTO ours FROM gte_small.columns_of(target) c WHERE c.embedding = embedding ORDER BY c.trigger_name DESC LIMIT 1;
  made := ARRAY(SELECT gte_small.made_functions(target, embedding)::oid
                UNION SELECT gte_small.made_functions(target, ours.named[1])::oid);
  -- A trigger that was written by hand has no functions, nor has a partition or a table of chunks.
  IF made = '{}' AND (NOT note ? 'text_search' OR gte_small.is_chunks_table(target) OR EXISTS (
       SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname = ours.trigger_name AND t.tgparentid <> 0)) IS NOT FALSE THEN
    RETURN NULL;
  END IF;
  SELECT q.schema_name, c.relname INTO here FROM gte_small.qualified(target) q, pg_class c WHERE c.oid = target;
  FOR wanted IN
    SELECT f.*, p.oid AS func
      FROM gte_small.search_functions(target, content, embedding,
             coalesce((SELECT t.oid FROM pg_ts_config t WHERE gte_small.config(t.oid) = note ->> 'text_search'), 'simple'::regconfig),
             coalesce(note ->> 'search_function', 'query_' || here.relname)) f
      LEFT JOIN pg_proc p ON p.oid = ANY (made) AND p.prosrc = f.body AND starts_with(obj_description(p.oid, 'pg_proc'), gte_small.mark(embedding))
  LOOP
    CONTINUE WHEN wanted.func IS NOT NULL AND wanted.func = ANY (made);
    existing := to_regprocedure(format('%s.%I(%s)', here.schema_name, wanted.name, wanted.types));
    other := CASE WHEN existing <> ALL (made::regprocedure[]) THEN gte_small.made_for_another(existing, target, embedding) END;
    RETURN CASE
      WHEN other IS NOT NULL THEN format('the function %s is still that of table %s, which was renamed', wanted.name, other)
      WHEN made = '{}' THEN 'the table has no search functions'
      WHEN existing IS NOT NULL AND existing <> ALL (made::regprocedure[]) THEN format('the function %s is not gte-small''s for this table', existing)
      ELSE 'the search functions are not those of this version or of the table''s columns' END;
  END LOOP;
  RETURN CASE WHEN EXISTS (SELECT p.prosrc FROM pg_proc p WHERE p.oid = ANY (made) EXCEPT
      SELECT f.body FROM gte_small.search_functions(target, content, embedding,
             coalesce((SELECT t.oid FROM pg_ts_config t WHERE gte_small.config(t.oid) = note ->> 'text_search'), 'simple'::regconfig),
             coalesce(note ->> 'search_function', 'query_' || here.relname)) f)
    THEN 'the search functions are not those of this version or of the table''s columns' END;
END
$body$;
COMMENT ON FUNCTION gte_small.functions_wrong(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.jsonb) IS
  'part of embedding_status: why the search functions of a column are to be renewed';
