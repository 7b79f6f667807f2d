-- Which columns of a table hold embeddings.

-- A trigger knows its columns by strings, its arguments, which follow no RENAME. So the note also has the numbers of
-- the columns, which a rename does not change. A name that the table has is that column; otherwise the number counts.
-- The embedding trigger follows the same rules (src/note/columns.rs).
CREATE FUNCTION gte_small.column_name_now(
    target pg_catalog.regclass, owner pg_catalog.regclass, named pg_catalog.name, noted pg_catalog.text)
  RETURNS pg_catalog.name
  AS 'MODULE_PATHNAME', 'column_name_now_gte_small'
  LANGUAGE c STABLE STRICT;
COMMENT ON FUNCTION gte_small.column_name_now(pg_catalog.regclass, pg_catalog.regclass, pg_catalog.name, pg_catalog.text) IS
  'part of embedding_columns: what a column is called now, by the note of the table or of the table it is a partition of';

CREATE FUNCTION gte_small.table_place(target pg_catalog.regclass) RETURNS pg_catalog.text
  AS 'MODULE_PATHNAME', 'table_place_gte_small'
  LANGUAGE c STABLE STRICT;
COMMENT ON FUNCTION gte_small.table_place(pg_catalog.regclass) IS
  'part of embedding_columns: cluster and OID of a table, which say whether noted numbers of columns are about it';

-- What a trigger with names of columns among its arguments keeps in its comment.
CREATE FUNCTION gte_small.noted_columns(target pg_catalog.regclass, names pg_catalog.name[]) RETURNS pg_catalog.jsonb
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT jsonb_build_object('table', gte_small.table_place(target), 'numbers', jsonb_object_agg(a.attname, a.attnum))
    FROM pg_attribute a WHERE a.attrelid = target AND a.attname = ANY (names) AND a.attnum > 0 AND NOT a.attisdropped
$body$;
COMMENT ON FUNCTION gte_small.noted_columns(pg_catalog.regclass, pg_catalog.name[]) IS
  'part of enable_semantic_search and others: the numbers of columns, to find them by after a rename';

-- A name for which no column is found stays as it is.
CREATE FUNCTION gte_small.names_now(target pg_catalog.regclass, names pg_catalog.name[], noted pg_catalog.jsonb) RETURNS pg_catalog.name[]
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT coalesce(array_agg(coalesce(gte_small.column_name_now(target, o.owner, u.named, noted::text), u.named) ORDER BY u.n), '{}')
    FROM unnest(names) WITH ORDINALITY AS u (named, n)
    CROSS JOIN (SELECT coalesce((SELECT a.relid FROM pg_partition_ancestors(target) a
                                  WHERE gte_small.table_place(a.relid) = noted ->> 'table' LIMIT 1), target) AS owner) AS o
$body$;
COMMENT ON FUNCTION gte_small.names_now(pg_catalog.regclass, pg_catalog.name[], pg_catalog.jsonb) IS
  'part of embedding_columns: what columns are called now';

-- An embedding column is one that a trigger with embed_trigger() fills. Partitions have clones of their
-- parent's trigger. The comment of the trigger holds the note of the column: JSON after "gte-small ".
-- A comment is transactional, belongs to the owner of the table, and is part of a dump.
--
-- "embedding" and "content" are the columns as they are called now; "named" are the arguments of the trigger.
CREATE FUNCTION gte_small.columns_of(
    target pg_catalog.regclass,
    OUT embedding pg_catalog.name,
    OUT content pg_catalog.name[],
    OUT trigger_name pg_catalog.name,
    OUT trigger_enabled pg_catalog.bool,
    OUT note pg_catalog.jsonb,
    OUT named pg_catalog.name[])
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  one record;
  names name[];
BEGIN
  FOR one IN
    WITH RECURSIVE ours AS (
      SELECT t.oid, t.tgname, t.tgenabled, t.tgnargs, t.tgargs, t.tgparentid
        FROM pg_trigger t
        JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = t.tgfoid
                        AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
        JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'gte-small'
        -- A table of chunks has another trigger of this extension.
        JOIN pg_proc p ON p.oid = t.tgfoid AND p.prosrc = 'embed_trigger_gte_small'
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
    -- A trigger with one argument has no text column, and embed_trigger() refuses it.
    named := CASE WHEN one.names IS NULL THEN '{embedding,content}' ELSE one.names END;
    names := gte_small.names_now(target, named, note -> 'columns');
    embedding := names[1];
    content := names[2:];
    RETURN NEXT;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION gte_small.columns_of(pg_catalog.regclass) IS
  'part of embedding_columns: the embedding columns of a table, with the names in the arguments of their triggers';

-- For arguments of functions: the name of a column that the table has no more is that of the column that its
-- embedding triggers knew by this name.
CREATE FUNCTION gte_small.name_today(target pg_catalog.regclass, named pg_catalog.name) RETURNS pg_catalog.name
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  now name;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = named AND NOT a.attisdropped) THEN
    SELECT u.now INTO now
      FROM gte_small.columns_of(target) c CROSS JOIN LATERAL unnest(c.named, c.embedding || c.content) AS u (named, now)
     WHERE u.named = name_today.named AND u.now <> u.named
     LIMIT 1;
    IF FOUND THEN
      RAISE NOTICE 'column "%" of table % is called "%" now', named, target, now;
      RETURN now;
    END IF;
  END IF;
  RETURN named;
END
$body$;
COMMENT ON FUNCTION gte_small.name_today(pg_catalog.regclass, pg_catalog.name) IS
  'part of enable_semantic_search and others: what a column is called now that had this name';

CREATE FUNCTION gte_small.embedding_columns(
    target pg_catalog.regclass,
    OUT embedding pg_catalog.name,
    OUT content pg_catalog.name[],
    OUT trigger_name pg_catalog.name,
    OUT trigger_enabled pg_catalog.bool,
    OUT note pg_catalog.jsonb)
  RETURNS SETOF pg_catalog.record
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  AS $body$ SELECT c.embedding, c.content, c.trigger_name, c.trigger_enabled, c.note FROM gte_small.columns_of($1) c $body$;
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
