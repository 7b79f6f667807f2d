-- Which columns of a table hold embeddings.

-- An embedding column is one that a trigger with embed_trigger() fills. Partitions have clones of their
-- parent's trigger. The comment of the trigger holds the note of the column: JSON after "gte-small ".
-- A comment is transactional, belongs to the owner of the table, and is part of a dump.
CREATE FUNCTION gte_small.embedding_columns(
    target pg_catalog.regclass,
    OUT embedding pg_catalog.name,
    OUT content pg_catalog.name[],
    OUT trigger_name pg_catalog.name,
    OUT trigger_enabled pg_catalog.bool,
    OUT note pg_catalog.jsonb)
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  one record;
BEGIN
  FOR one IN
    WITH RECURSIVE ours AS (
      SELECT t.oid, t.tgname, t.tgenabled, t.tgnargs, t.tgargs, t.tgparentid
        FROM pg_trigger t
        JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = t.tgfoid
                        AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
        JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'gte-small'
       WHERE t.tgrelid = target AND NOT t.tgisinternal
    ), origins (oid, origin, parent) AS (
      SELECT o.oid, o.oid, o.tgparentid FROM ours o
      UNION ALL
      SELECT o.oid, t.oid, t.tgparentid FROM origins o JOIN pg_trigger t ON t.oid = o.parent
    )
    SELECT o.tgname, o.tgenabled, arguments.names,
           obj_description((SELECT a.origin FROM origins a WHERE a.oid = o.oid AND a.parent = 0), 'pg_trigger') AS description
      FROM ours o
      -- The arguments stand in tgargs one after the other, each with a zero byte behind it.
      CROSS JOIN LATERAL (
        SELECT array_agg(convert_from(decode(replace(hex, ' ', ''), 'hex'), getdatabaseencoding())::name ORDER BY n) AS names
          FROM regexp_split_to_table(regexp_replace(encode(o.tgargs, 'hex'), '(..)', '\1 ', 'g'), '00 ')
               WITH ORDINALITY AS argument (hex, n)
         WHERE n <= o.tgnargs) AS arguments
     ORDER BY o.tgname
  LOOP
    embedding := coalesce(one.names[1], 'embedding');
    content := coalesce(one.names[2:], '{content}');
    trigger_name := one.tgname;
    trigger_enabled := one.tgenabled IN ('O', 'A');
    note := NULL;
    IF one.description LIKE 'gte-small {%' THEN
      BEGIN
        note := substr(one.description, 11)::jsonb;
      EXCEPTION WHEN invalid_text_representation OR untranslatable_character THEN
        -- Somebody edited the comment: nothing is known.
      END;
    END IF;
    RETURN NEXT;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION gte_small.embedding_columns(pg_catalog.regclass) IS
  'twin of embedding_columns(regclass)';

CREATE FUNCTION embedding_columns(
    target pg_catalog.regclass,
    OUT embedding pg_catalog.name,
    OUT content pg_catalog.name[],
    OUT trigger_name pg_catalog.name,
    OUT trigger_enabled pg_catalog.bool,
    OUT note pg_catalog.jsonb)
  RETURNS SETOF pg_catalog.record
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  AS $body$ SELECT * FROM gte_small.embedding_columns($1) $body$;
COMMENT ON FUNCTION embedding_columns(pg_catalog.regclass) IS
  'the embedding columns of a table: their text columns, trigger, and what is known of their model';

-- embed_trigger() does this itself when it embeds. It does not embed in a backfill's UPDATE, so a
-- backfill calls this function.
CREATE FUNCTION embedding_written(target pg_catalog.regclass, embedding pg_catalog.name DEFAULT 'embedding')
  RETURNS pg_catalog.void
  AS 'MODULE_PATHNAME', 'embedding_written_gte_small'
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION embedding_written(pg_catalog.regclass, pg_catalog.name) IS
  'notes for a column that embeddings of the model in use were written to it';

CREATE FUNCTION gte_small.embedding_written(target pg_catalog.regclass, embedding pg_catalog.name)
  RETURNS pg_catalog.void
  AS 'MODULE_PATHNAME', 'embedding_written_gte_small'
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION gte_small.embedding_written(pg_catalog.regclass, pg_catalog.name) IS
  'twin of embedding_written(regclass, name)';

-- The schema of pgvector is looked up at each call: PostgreSQL 14 and 15 do not tell it to the install
-- script, and ALTER EXTENSION can change it.
CREATE FUNCTION gte_small.vector_schema() RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
   WHERE e.extname = 'vector'
$body$;
COMMENT ON FUNCTION gte_small.vector_schema() IS
  'part of enable_semantic_search and others: the schema of extension "vector", quoted';

CREATE FUNCTION gte_small.extension_schema() RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
   WHERE e.extname = 'gte-small'
$body$;
COMMENT ON FUNCTION gte_small.extension_schema() IS
  'part of enable_semantic_search and others: the schema of extension "gte-small", quoted';
