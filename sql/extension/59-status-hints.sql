-- What embedding_status tells beside its counts. Each function returns NULL, or no row, where there is
-- nothing to say. They read the catalogues and the statistics, and no row of the table.

-- What a user would probably embed of a table: its column "content", or all its texts. NULL if it has none.
CREATE FUNCTION gte_small.likely_content(target pg_catalog.regclass) RETURNS pg_catalog.name[]
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  WITH texts AS (
    SELECT a.attnum, a.attname
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
       AND coalesce(nullif(t.typbasetype, 0), t.oid) IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype))
  SELECT coalesce((SELECT ARRAY[t.attname] FROM texts t WHERE t.attname = 'content'),
                  (SELECT array_agg(t.attname ORDER BY t.attnum) FROM texts t))
$body$;
COMMENT ON FUNCTION gte_small.likely_content(pg_catalog.regclass) IS
  'part of embedding_status: the columns for a statement where nobody can know which were embedded';

-- A column that a trigger names was dropped. Until there is another trigger, each write fails.
CREATE FUNCTION gte_small.gone_hints(
    target pg_catalog.regclass, embedding pg_catalog.name, content pg_catalog.name[], gone pg_catalog.name[],
    trigger_name pg_catalog.name)
  RETURNS pg_catalog.text[]
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT ARRAY[
    format('there is no column %s, and writes fail; %s', (SELECT string_agg(quote_ident(g), ', ') FROM unnest(gone) g),
           CASE WHEN n.names IS NOT NULL THEN format('to embed what is there: SELECT enable_semantic_search(%L, %L, %L)', target, n.names, embedding)
                -- No text is left.
                ELSE (SELECT format('to bring it back: ALTER TABLE %s %s', target,
                                    string_agg(format('ADD COLUMN %I %s', g, CASE WHEN g = embedding THEN gte_small.vector_schema() || '.vector(384)' ELSE 'text' END), ', '))
                        FROM unnest(gone) g) END),
    format('to end the search: DROP TRIGGER %I ON %s', trigger_name, target)]
    FROM (SELECT coalesce((SELECT array_agg(c ORDER BY n) FROM unnest(content) WITH ORDINALITY AS u (c, n) WHERE c <> ALL (gone)),
                          gte_small.likely_content(target)) AS names) n
$body$;
COMMENT ON FUNCTION gte_small.gone_hints(pg_catalog.regclass, pg_catalog.name, pg_catalog.name[], pg_catalog.name[], pg_catalog.name) IS
  'part of embedding_status: says that a column of the trigger was dropped, and what to do';

-- Columns that look like embedding columns, and no trigger fills them: after a swap of tables by renaming,
-- DETACH PARTITION, DROP TRIGGER, and in a table that inherits from an enabled one. It is a column of type
-- vector(384) that is not generated, with an index that serves searches, with an index or a search function of
-- the column's mark, or of a parent that is enabled. "content" is the parent's, or that of a full-text index, or a
-- column "content", or all texts.
CREATE FUNCTION gte_small.columns_without_trigger(
    target pg_catalog.regclass, OUT embedding pg_catalog.name, OUT content pg_catalog.name[])
  RETURNS SETOF pg_catalog.record
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  WITH here AS (
    SELECT c.oid, c.reltype, a.attname
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.oid = target AND c.relkind IN ('r', 'p') AND a.attgenerated = '' AND a.atttypmod IN (-1, 384)
       AND a.atttypid = to_regtype(gte_small.vector_schema() || '.vector')
       AND a.attname NOT IN (SELECT e.embedding FROM gte_small.embedding_columns(target) e)
  ), candidates AS (
    SELECT h.*, (SELECT e.content FROM pg_inherits i CROSS JOIN LATERAL gte_small.embedding_columns(i.inhparent) e
                  WHERE i.inhrelid = target AND e.embedding = h.attname LIMIT 1) AS inherited
      FROM here h
)
  SELECT c.attname, coalesce(c.inherited,
           (SELECT array_agg(t.attname ORDER BY position(quote_ident(t.attname) IN pg_get_expr(i.indexprs, i.indrelid)))
              FROM pg_index i
              JOIN pg_opclass o ON o.oid = i.indclass[0] AND o.opcname = 'words_ops' AND o.opcnamespace = 'gte_small'::regnamespace
              JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                              AND d.refclassid = 'pg_class'::regclass AND d.refobjid = target
              JOIN pg_attribute t ON t.attrelid = target AND t.attnum = d.refobjsubid
             WHERE i.indrelid = target GROUP BY i.indexrelid ORDER BY i.indexrelid LIMIT 1),
           gte_small.likely_content(target))
    FROM candidates c
   WHERE c.inherited IS NOT NULL
      OR EXISTS (SELECT FROM gte_small.vector_indexes(target, c.attname))
      OR EXISTS (SELECT FROM gte_small.indexes(target, c.attname))
      OR EXISTS (SELECT FROM pg_proc p WHERE p.prorettype = c.reltype
                    AND starts_with(obj_description(p.oid, 'pg_proc'), gte_small.mark(c.attname) || ': '))
   ORDER BY c.attname
$body$;
COMMENT ON FUNCTION gte_small.columns_without_trigger(pg_catalog.regclass) IS
  'part of embedding_status: embedding columns that no trigger fills';

-- A trigger has the rows of its own table only, and so have the search functions.
CREATE FUNCTION gte_small.children_hint(target pg_catalog.regclass, embedding pg_catalog.name, content pg_catalog.name[])
  RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  WITH RECURSIVE children (oid) AS (
    SELECT i.inhrelid FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent AND c.relkind = 'r' WHERE i.inhparent = target
     UNION
    SELECT i.inhrelid FROM children p JOIN pg_inherits i ON i.inhparent = p.oid),
  bare (oid, n) AS (
    SELECT c.oid, row_number() OVER (ORDER BY c.oid) FROM children c
     WHERE NOT EXISTS (SELECT FROM gte_small.embedding_columns(c.oid) e WHERE e.embedding = $2))
  SELECT format('rows of %s tables that inherit from this one, such as %s, are neither embedded nor in its searches: %s',
                max(b.n), min(b.oid::regclass::text) FILTER (WHERE b.n = 1),
                string_agg(format('SELECT enable_semantic_search(%L, %L, %L)', b.oid::regclass, content, embedding), '; ' ORDER BY b.n)
                  FILTER (WHERE b.n <= 10))
    FROM bare b HAVING count(*) > 0
$body$;
COMMENT ON FUNCTION gte_small.children_hint(pg_catalog.regclass, pg_catalog.name, pg_catalog.name[]) IS
  'part of embedding_status: says that tables inherit from this one and are not enabled';

CREATE FUNCTION gte_small.version_numbers(version pg_catalog.text) RETURNS pg_catalog.int4[]
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  AS $body$ SELECT string_to_array(substring(version from '^\d{1,5}(?:\.\d{1,5})*'), '.')::int4[] $body$;
COMMENT ON FUNCTION gte_small.version_numbers(pg_catalog.text) IS
  'part of embedding_status: a version as numbers, which compare as versions do';

-- pgvector 0.8.3 and 0.8.4 corrected errors of HNSW indexes: rows that searches lose after VACUUM.
CREATE FUNCTION gte_small.pgvector_hint(target pg_catalog.regclass, embedding pg_catalog.name) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT format('pgvector %s has errors in HNSW indexes that 0.8.4 corrects; %s: ALTER EXTENSION vector UPDATE; %s',
                e.extversion,
                CASE WHEN EXISTS (SELECT FROM pg_available_extensions a WHERE a.name = 'vector'
                                     AND gte_small.version_numbers(a.default_version) >= '{0,8,4}')
                     THEN 'the server has a later one' ELSE 'install a later one, and then' END,
                i.statements)
    FROM pg_extension e
   CROSS JOIN LATERAL (SELECT string_agg(format('REINDEX INDEX %s', v.indexrelid::regclass), '; ' ORDER BY v.indexrelid) AS statements
                         FROM gte_small.vector_indexes(target, embedding) v WHERE v.method = 'hnsw') i
   WHERE e.extname = 'vector' AND gte_small.version_numbers(e.extversion) < '{0,8,4}' AND i.statements IS NOT NULL
$body$;
COMMENT ON FUNCTION gte_small.pgvector_hint(pg_catalog.regclass, pg_catalog.name) IS
  'part of embedding_status: says that this version of pgvector has errors in HNSW indexes';

-- The dead elements of an HNSW index are read by each search that comes near them, and take the place of rows in
-- its list of candidates. Autovacuum begins at 20 % by default.
CREATE FUNCTION gte_small.dead_rows_hint(target pg_catalog.regclass, embedding pg_catalog.name) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT format('%s dead rows are beside %s live ones; those in the index make searches slow and can hide rows: VACUUM %s',
                s.dead, s.live, target)
    FROM (SELECT sum(pg_stat_get_dead_tuples(l)) AS dead, sum(pg_stat_get_live_tuples(l)) AS live
            FROM unnest(gte_small.backfill_leaves(target)) l) s
   WHERE s.dead >= 1000 AND s.dead > 0.25 * s.live
     AND EXISTS (SELECT FROM gte_small.vector_indexes(target, embedding) v WHERE v.method = 'hnsw')
$body$;
COMMENT ON FUNCTION gte_small.dead_rows_hint(pg_catalog.regclass, pg_catalog.name) IS
  'part of embedding_status: says that the index has many dead rows';

-- A CREATE INDEX CONCURRENTLY that failed leaves an index that each write pays for and no search uses.
CREATE FUNCTION gte_small.invalid_index_hint(target pg_catalog.regclass, embedding pg_catalog.name) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT format('index %s was not completed, and no search uses it: REINDEX INDEX CONCURRENTLY %1$s', i.indexrelid::regclass)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i' JOIN pg_am m ON m.oid = c.relam
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attname = embedding
   WHERE i.indrelid = target AND NOT i.indisvalid AND m.amname IN ('hnsw', 'ivfflat')
     -- One that is being built now.
     AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.relid = target)
   ORDER BY i.indexrelid LIMIT 1
$body$;
COMMENT ON FUNCTION gte_small.invalid_index_hint(pg_catalog.regclass, pg_catalog.name) IS
  'part of embedding_status: names an index whose creation failed';

-- Of a large table CREATE INDEX would stop the writers for minutes.
CREATE FUNCTION gte_small.index_hint(target pg_catalog.regclass, embedding pg_catalog.name) RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
BEGIN
  RETURN 'searches read the whole table: ' || coalesce(
    CASE WHEN gte_small.is_large(target) THEN (SELECT string_agg(s, E'\n') FROM gte_small.index_statements(target, embedding) s) END,
    format('CREATE INDEX ON %s USING hnsw (%I %s.vector_ip_ops)', target, embedding, gte_small.vector_schema()));
END
$body$;
COMMENT ON FUNCTION gte_small.index_hint(pg_catalog.regclass, pg_catalog.name) IS
  'part of embedding_status: the statements that make the index';

-- hybrid_... finds words by a full-text index. Of a large table without any index, index_hint() has its statements too.
CREATE FUNCTION gte_small.words_hint(
    target pg_catalog.regclass, embedding pg_catalog.name, content pg_catalog.name[], note pg_catalog.jsonb)
  RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  language CONSTANT regconfig := (SELECT t.oid FROM pg_ts_config t WHERE gte_small.config(t.oid) = note ->> 'text_search');
BEGIN
  IF language IS NULL
     OR NOT EXISTS (SELECT FROM gte_small.made_functions(target, embedding) f JOIN pg_proc p ON p.oid = f WHERE p.proname LIKE 'hybrid%')
     OR EXISTS (SELECT FROM gte_small.word_indexes(target, content, language)) THEN
    RETURN NULL;
  ELSIF gte_small.is_large(target) THEN
    RETURN (SELECT E'hybrid searches read the whole table:\n' || string_agg(s, E'\n') FROM gte_small.index_statements(target, embedding) s
             WHERE EXISTS (SELECT FROM gte_small.vector_indexes(target, embedding)));
  END IF;
  RETURN format('hybrid searches read the whole table: SELECT enable_semantic_search(%L, %L, %L)', target, content, embedding);
END
$body$;
COMMENT ON FUNCTION gte_small.words_hint(pg_catalog.regclass, pg_catalog.name, pg_catalog.name[], pg_catalog.jsonb) IS
  'part of embedding_status: the statements that make the full-text index';
