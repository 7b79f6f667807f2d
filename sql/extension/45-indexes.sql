-- The indexes that enable_semantic_search creates.

-- An index that was created for an embedding column is recognized by its comment, not by its name. An
-- index that the user created has no such comment, and disable_semantic_search keeps it. The index of a table that
-- was attached as a partition belongs to the parent's index.
CREATE FUNCTION gte_small.indexes(
    target pg_catalog.regclass, embedding pg_catalog.name,
    OUT indexrelid pg_catalog.oid, OUT method pg_catalog.name)
  RETURNS SETOF pg_catalog.record
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT i.indexrelid, m.amname
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
   WHERE i.indrelid = target AND obj_description(i.indexrelid, 'pg_class') = gte_small.mark(embedding) AND NOT c.relispartition
$body$;
COMMENT ON FUNCTION gte_small.indexes(pg_catalog.regclass, pg_catalog.name) IS
  'part of enable_semantic_search: the indexes it made for an embedding column';

-- The qualified name of a text-search configuration, which does not depend on the search_path.
CREATE FUNCTION gte_small.config(language pg_catalog.regconfig) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT format('%I.%I', n.nspname, t.cfgname) FROM pg_ts_config t JOIN pg_namespace n ON n.oid = t.cfgnamespace
   WHERE t.oid = language
$body$;
COMMENT ON FUNCTION gte_small.config(pg_catalog.regconfig) IS
  'part of enable_semantic_search: the qualified name of a text-search configuration';

-- The expression for the words of a row, or with of_e of a row e. The index and the search use the same
-- expression. It takes the columns as they are, because the planner finds no index for an expression with
-- COALESCE under row-level security.
--
-- char(n) has a function of its own, because its cast to text hides the index under row-level security as well.
CREATE FUNCTION gte_small.words_expression(
    target pg_catalog.regclass, content pg_catalog.name[], language pg_catalog.regconfig, of_e pg_catalog.bool DEFAULT false)
  RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  WITH RECURSIVE base (attname, oid, basetype) AS (
    SELECT a.attname, t.oid, t.typbasetype FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped
     UNION ALL
    SELECT b.attname, t.oid, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.basetype)
  SELECT format('gte_small.words(%L::pg_catalog.regconfig, %s)', gte_small.config(language),
                string_agg(format(CASE WHEN EXISTS (SELECT FROM base b WHERE b.attname = c AND b.oid = 'bpchar'::regtype)
                                       THEN 'gte_small.unpadded(%s%I)' ELSE '%s%I::pg_catalog.text' END,
                                  CASE WHEN of_e THEN 'e.' END, c), ', ' ORDER BY n))
    FROM unnest(content) WITH ORDINALITY AS u (c, n)
$body$;
COMMENT ON FUNCTION gte_small.words_expression(pg_catalog.regclass, pg_catalog.name[], pg_catalog.regconfig, pg_catalog.bool) IS
  'part of enable_semantic_search: the expression of the full-text index';

-- The same expression as the catalogue shows it, to know an index by.
CREATE FUNCTION gte_small.words_shown(
    target pg_catalog.regclass, content pg_catalog.name[], language pg_catalog.regconfig)
  RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT format('gte_small.words(%L::regconfig, VARIADIC ARRAY[%s])', language,
                string_agg(format(CASE format_type(a.atttypid, NULL) WHEN 'text' THEN '%I' WHEN 'character' THEN 'gte_small.unpadded(%I)'
                                       ELSE '(%I)::text' END, a.attname), ', ' ORDER BY n))
    FROM unnest(content) WITH ORDINALITY AS u (c, n)
    JOIN pg_attribute a ON a.attrelid = target AND a.attname = c
$body$;
COMMENT ON FUNCTION gte_small.words_shown(pg_catalog.regclass, pg_catalog.name[], pg_catalog.regconfig) IS
  'part of enable_semantic_search: the expression of the full-text index as the catalogue shows it';

-- The indexes that serve hybrid search in these columns and this language, also one that the user created.
CREATE FUNCTION gte_small.word_indexes(
    target pg_catalog.regclass, content pg_catalog.name[], language pg_catalog.regconfig)
  RETURNS SETOF pg_catalog.oid
  LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT i.indexrelid
    FROM pg_index i JOIN pg_opclass o ON o.oid = i.indclass[0]
   WHERE i.indrelid = target AND i.indisvalid AND i.indpred IS NULL AND i.indnatts = 1
     AND o.opcname = 'words_ops' AND o.opcnamespace = 'gte_small'::regnamespace
     AND pg_get_expr(i.indexprs, i.indrelid) = gte_small.words_shown(target, content, language)
$body$;
COMMENT ON FUNCTION gte_small.word_indexes(pg_catalog.regclass, pg_catalog.name[], pg_catalog.regconfig) IS
  'part of enable_semantic_search: the full-text indexes for these columns and this language';

-- The indexes that serve a search by meaning, also one that the user created. Searches order by the inner
-- product: on vectors of unit length it orders as the cosine does, and costs the least. "kind" is the type of the
-- indexed value: vector, or halfvec for an index of half the size.
CREATE FUNCTION gte_small.vector_indexes(
    target pg_catalog.regclass, embedding pg_catalog.name,
    OUT indexrelid pg_catalog.oid, OUT kind pg_catalog.text, OUT method pg_catalog.name)
  RETURNS SETOF pg_catalog.record
  LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT i.indexrelid, CASE o.opcname WHEN 'vector_ip_ops' THEN 'vector' ELSE 'halfvec' END, m.amname
    FROM pg_index i JOIN pg_opclass o ON o.oid = i.indclass[0] JOIN pg_am m ON m.oid = o.opcmethod
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attnum > 0
   WHERE i.indrelid = target AND i.indisvalid AND i.indpred IS NULL AND i.indnatts = 1 AND m.amname IN ('hnsw', 'ivfflat')
     AND CASE o.opcname WHEN 'vector_ip_ops' THEN a.attname = embedding
         WHEN 'halfvec_ip_ops' THEN pg_get_expr(i.indexprs, i.indrelid)
           IN (format('(%I)::%s.halfvec(384)', embedding, gte_small.vector_schema()), format('(%I)::halfvec(384)', embedding))
         ELSE false END
$body$;
COMMENT ON FUNCTION gte_small.vector_indexes(pg_catalog.regclass, pg_catalog.name) IS
  'part of enable_semantic_search: the indexes that serve a search by meaning';

-- Whether searches use an index of halfvec: there is one, and none of vector.
CREATE FUNCTION gte_small.searches_halfvec(target pg_catalog.regclass, embedding pg_catalog.name) RETURNS pg_catalog.bool
  LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
  AS $body$ SELECT coalesce(bool_and(i.kind = 'halfvec'), false) FROM gte_small.vector_indexes(target, embedding) i $body$;
COMMENT ON FUNCTION gte_small.searches_halfvec(pg_catalog.regclass, pg_catalog.name) IS
  'part of enable_semantic_search: whether searches use an index of halfvec';

-- Checks index_options, before anything is made.
CREATE FUNCTION gte_small.check_index_options(index_options pg_catalog.jsonb) RETURNS pg_catalog.void
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  option record;
BEGIN
  IF jsonb_typeof(index_options) <> 'object' THEN
    RAISE EXCEPTION 'index_options is not a JSON object'
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Nothing was made.',
            HINT = 'Write index_options => ''{"m": 24, "ef_construction": 128}''.';
  END IF;
  FOR option IN SELECT * FROM jsonb_each(index_options) LOOP
    IF NOT (CASE option.key
      WHEN 'type' THEN option.value IN ('"vector"', '"halfvec"')
      WHEN 'm' THEN option.value::text ~ '^\d{1,3}$' AND option.value::text::int BETWEEN 2 AND 100
      WHEN 'ef_construction' THEN option.value::text ~ '^\d{1,4}$' AND option.value::text::int BETWEEN 4 AND 1000
      WHEN 'build' THEN option.value IN ('"now"', '"later"')
      ELSE false END) THEN
      RAISE EXCEPTION 'index option "%" can''t be %', option.key, option.value
        USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Nothing was made.',
              HINT = 'The options are "m" (2 to 100), "ef_construction" (4 to 1000, at least 2 * m), "type" ("vector" or "halfvec") and "build" ("now" or "later").';
    END IF;
  END LOOP;
  IF coalesce((index_options ->> 'ef_construction')::int, 64) < 2 * coalesce((index_options ->> 'm')::int, 16) THEN
    RAISE EXCEPTION 'ef_construction is less than 2 * m'
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Such an index can''t be built; nothing was made.',
            HINT = 'Raise "ef_construction" (64 if not given), or lower "m" (16 if not given).';
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.check_index_options(pg_catalog.jsonb) IS
  'part of enable_semantic_search: refuses options that an index can''t have';

-- One thing to be done about the indexes of a column. "step" is make or drop; "part" is hnsw, gin, or second for the
-- index of the rows without frequent vectors, with the signatures of those.
CREATE TYPE gte_small.index_step AS (
  step pg_catalog.text,
  part pg_catalog.text,
  indexrelid pg_catalog.oid,
  frequent pg_catalog.int8[]
);
COMMENT ON TYPE gte_small.index_step IS
  'part of enable_semantic_search: an index to be made or dropped';

-- All of them, found before anything is done, because the lock depends on them. A drop stands after the make that
-- replaces the index.
CREATE FUNCTION gte_small.index_plan(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name, language pg_catalog.regconfig,
    index_options pg_catalog.jsonb)
  RETURNS gte_small.index_step[]
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  column_there CONSTANT bool := EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = embedding AND NOT a.attisdropped);
  crowd CONSTANT int8[] := CASE WHEN column_there THEN ARRAY(SELECT f.signature FROM gte_small.frequent_vectors(target, embedding) f) ELSE '{}' END;
  words CONSTANT oid[] := ARRAY(SELECT gte_small.word_indexes(target, content, language));
  second CONSTANT oid[] := ARRAY(SELECT s.indexrelid FROM gte_small.second_index(target, embedding) s);
  up_to_date CONSTANT oid[] := ARRAY(SELECT s.indexrelid FROM gte_small.second_index(target, embedding) s
                                      WHERE s.frequent @> crowd AND crowd <> '{}');
  plan gte_small.index_step[] := '{}';
BEGIN
  IF NOT EXISTS (SELECT FROM gte_small.vector_indexes(target, embedding) i JOIN pg_class c ON c.oid = i.indexrelid
                  WHERE i.method = 'hnsw' AND i.kind = coalesce(index_options ->> 'type', i.kind)
                    AND coalesce(c.reloptions, '{}') @> gte_small.storage_options(index_options)) THEN
    plan := plan || ROW('make', 'hnsw', NULL, NULL)::gte_small.index_step
      || ARRAY(SELECT ROW('drop', 'hnsw', i.indexrelid, NULL)::gte_small.index_step FROM gte_small.indexes(target, embedding) i
                WHERE i.method = 'hnsw' AND i.indexrelid <> ALL (second));
  END IF;
  IF words = '{}' THEN
    plan := plan || ROW('make', 'gin', NULL, NULL)::gte_small.index_step;
  END IF;
  -- Of other text, in another language, or of an earlier version.
  plan := plan || ARRAY(SELECT ROW('drop', 'gin', i.indexrelid, NULL)::gte_small.index_step FROM gte_small.indexes(target, embedding) i
                         WHERE i.method = 'gin' AND i.indexrelid <> ALL (words));
  IF crowd <> '{}' AND up_to_date = '{}' THEN
    plan := plan || ROW('make', 'second', NULL, crowd)::gte_small.index_step;
  END IF;
  -- Where no vector is frequent it costs writes and serves nothing.
  RETURN plan || ARRAY(SELECT ROW('drop', 'second', s, NULL)::gte_small.index_step FROM unnest(second) s JOIN pg_class c ON c.oid = s
                        WHERE s <> ALL (up_to_date) AND NOT c.relispartition);
END
$body$;
COMMENT ON FUNCTION gte_small.index_plan(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig, pg_catalog.jsonb) IS
  'part of enable_semantic_search: which indexes of an embedding column are to be made and dropped';

-- Those of the index options that stand in WITH.
CREATE FUNCTION gte_small.storage_options(index_options pg_catalog.jsonb) RETURNS pg_catalog.text[]
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT ARRAY(SELECT format('%s=%s', o.key, o.value #>> '{}') FROM jsonb_each(index_options) o
                WHERE o.key IN ('m', 'ef_construction') ORDER BY o.key)
$body$;
COMMENT ON FUNCTION gte_small.storage_options(pg_catalog.jsonb) IS
  'part of enable_semantic_search: the storage parameters that index options ask for';

-- What stands behind CREATE INDEX ... ON table USING.
CREATE FUNCTION gte_small.index_definition(
    target pg_catalog.regclass, part pg_catalog.text, content pg_catalog.name[], embedding pg_catalog.name,
    language pg_catalog.regconfig, index_options pg_catalog.jsonb, frequent pg_catalog.int8[])
  RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  vec text := gte_small.vector_schema();
BEGIN
  RETURN CASE
    WHEN part = 'gin' THEN format('gin ((%s) gte_small.words_ops)', gte_small.words_expression(target, content, language))
    WHEN part = 'second' THEN format('hnsw (%I %s.vector_l2_ops) WHERE gte_small.signature(%1$I) OPERATOR(pg_catalog.<>) ALL (%3$L::pg_catalog.int8[])',
                                     embedding, vec, frequent::text)
    ELSE CASE WHEN index_options ->> 'type' = 'halfvec' THEN format('hnsw ((%I::%s.halfvec(384)) %2$s.halfvec_ip_ops)', embedding, vec)
              ELSE format('hnsw (%I %s.vector_ip_ops)', embedding, vec) END
         || coalesce(' WITH (' || nullif(array_to_string(gte_small.storage_options(index_options), ', '), '') || ')', '') END;
END
$body$;
COMMENT ON FUNCTION gte_small.index_definition(pg_catalog.regclass, pg_catalog.text, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig, pg_catalog.jsonb, pg_catalog.int8[]) IS
  'part of enable_semantic_search: method, columns and options of an index';

-- Makes an index. PostgreSQL chooses its name, because a fixed name could be taken.
CREATE FUNCTION gte_small.make_index(
    target pg_catalog.regclass, part pg_catalog.text, content pg_catalog.name[], embedding pg_catalog.name,
    language pg_catalog.regconfig, index_options pg_catalog.jsonb, frequent pg_catalog.int8[] DEFAULT NULL)
  RETURNS pg_catalog.text
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  before oid[] := ARRAY(SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = target);
  definition text := gte_small.index_definition(target, part, content, embedding, language, index_options, frequent);
  made oid;
BEGIN
  BEGIN
    EXECUTE format('CREATE INDEX ON %s USING %s', target, definition);
  EXCEPTION
    -- A parallel build of HNSW takes maintenance_work_mem of shared memory, which a container limits to 64 MB.
    WHEN disk_full OR out_of_memory THEN
      RAISE EXCEPTION 'no room to build an index on table %: %', target, SQLERRM
        USING ERRCODE = SQLSTATE, DETAIL = 'Nothing was made.',
              HINT = CASE WHEN SQLERRM LIKE '%shared memory%' THEN 'SET max_parallel_maintenance_workers = 0, lower maintenance_work_mem, '
                            'or give the server a larger /dev/shm (docker run --shm-size=1g), and enable the search again.'
                          WHEN SQLSTATE = '53100' THEN 'Free space on the server''s disk, or enable the search with with_index => false.'
                          ELSE 'Lower maintenance_work_mem, or SET max_parallel_maintenance_workers = 0, and enable the search again.' END;
  END;
  SELECT i.indexrelid INTO STRICT made FROM pg_index i WHERE i.indrelid = target AND i.indexrelid <> ALL (before);
  EXECUTE format('COMMENT ON INDEX %s IS %L', made::regclass, gte_small.mark(embedding));
  RETURN format('index %s', made::regclass);
END
$body$;
COMMENT ON FUNCTION gte_small.make_index(pg_catalog.regclass, pg_catalog.text, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig, pg_catalog.jsonb, pg_catalog.int8[]) IS
  'part of enable_semantic_search: makes an index of an embedding column';

-- The other embedding column that needs a full-text index: one of the same text.
CREATE FUNCTION gte_small.index_heir(target pg_catalog.regclass, dropped pg_catalog.oid, embedding pg_catalog.name)
  RETURNS pg_catalog.name
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT c.embedding
    FROM gte_small.embedding_columns(target) c
    JOIN pg_ts_config t ON gte_small.config(t.oid) = c.note ->> 'text_search'
    JOIN pg_index i ON i.indexrelid = dropped
   WHERE c.embedding <> index_heir.embedding
     AND pg_get_expr(i.indexprs, i.indrelid) = gte_small.words_shown(target, c.content, t.oid)
   ORDER BY c.embedding LIMIT 1
$body$;
COMMENT ON FUNCTION gte_small.index_heir(pg_catalog.regclass, pg_catalog.oid, pg_catalog.name) IS
  'part of enable_semantic_search: the other embedding column that a full-text index serves';

-- Drops an index that was created for an embedding column. A full-text index is kept if another
-- embedding column has the same text; its comment then names that column.
CREATE FUNCTION gte_small.drop_index(target pg_catalog.regclass, dropped pg_catalog.oid, embedding pg_catalog.name)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  heir name := gte_small.index_heir(target, dropped, embedding);
BEGIN
  IF heir IS NULL THEN
    EXECUTE format('DROP INDEX %s', dropped::regclass);
  ELSE
    EXECUTE format('COMMENT ON INDEX %s IS %L', dropped::regclass, gte_small.mark(heir));
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.drop_index(pg_catalog.regclass, pg_catalog.oid, pg_catalog.name) IS
  'part of enable_semantic_search: drops an index it made, or leaves it to another embedding column';

-- Carries out a plan, and returns what it changed.
CREATE FUNCTION gte_small.make_indexes(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name, language pg_catalog.regconfig,
    index_options pg_catalog.jsonb, plan gte_small.index_step[])
  RETURNS pg_catalog.text[]
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  one gte_small.index_step;
  changed text[] := '{}';
BEGIN
  FOREACH one IN ARRAY plan LOOP
    IF one.step = 'make' THEN
      changed := changed || gte_small.make_index(target, one.part, content, embedding, language, index_options, one.frequent);
    ELSE
      changed := changed || CASE WHEN one.part = 'second' THEN ARRAY[format('index %s (dropped)', one.indexrelid::regclass)] ELSE '{}' END;
      PERFORM gte_small.drop_index(target, one.indexrelid, embedding);
    END IF;
  END LOOP;
  RETURN changed;
END
$body$;
COMMENT ON FUNCTION gte_small.make_indexes(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig, pg_catalog.jsonb, gte_small.index_step[]) IS
  'part of enable_semantic_search: makes and drops indexes, and names those it made';
