-- What an update of the extension can't do: objects in users' schemas are theirs, and ALTER EXTENSION does not
-- know them. Functions and indexes that an earlier version made work until they are renewed here.
CREATE FUNCTION refresh_semantic_search(
    OUT relation pg_catalog.regclass, OUT embedding pg_catalog.name, OUT renewed pg_catalog.text)
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  ours record;
  changed text[];
  message text; detail text; hint text;
  foreign_tables text;
BEGIN
  -- Without a column: a table whose documents are searched by their chunks.
  FOR ours IN
    SELECT t.tgrelid::regclass AS target, c.embedding, c.content, pg_has_role(k.relowner, 'USAGE') AS may,
           EXISTS (SELECT FROM gte_small.indexes(t.tgrelid, c.embedding) UNION ALL SELECT FROM gte_small.indexes(t.tgrelid, c.named[1])) AS with_index
      FROM (SELECT DISTINCT t.tgrelid FROM pg_trigger t
              JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = t.tgfoid
                              AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
              JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'gte-small') t
      JOIN pg_class k ON k.oid = t.tgrelid
      CROSS JOIN LATERAL gte_small.columns_of(t.tgrelid) c
     -- The column may be called otherwise now.
     WHERE c.trigger_name = gte_small.trigger_name(c.named[1])
       -- A trigger that was written by hand has neither. A table of chunks has indexes only.
       AND (EXISTS (SELECT FROM gte_small.made_functions(t.tgrelid, c.named[1]))
            OR EXISTS (SELECT FROM gte_small.indexes(t.tgrelid, c.named[1])) AND NOT gte_small.is_chunks_table(t.tgrelid))
     UNION ALL
    SELECT DISTINCT d.target, NULL::name, NULL::name[], pg_has_role(k.relowner, 'USAGE'), NULL::bool
      FROM (SELECT t.tgrelid FROM pg_trigger t WHERE t.tgfoid = 'gte_small.accept_chunk'::regproc OFFSET 0) c
      -- The owner may have added foreign keys.
      CROSS JOIN LATERAL gte_small.document_keys(c.tgrelid) d
      JOIN pg_class k ON k.oid = d.target
     ORDER BY 1, 2
  LOOP
    IF NOT ours.may THEN
      foreign_tables := concat_ws(', ', foreign_tables, ours.target::text);
      CONTINUE;
    END IF;
    relation := ours.target;
    embedding := ours.embedding;
    BEGIN
      IF embedding IS NULL THEN
        changed := gte_small.renew_documents(ours.target);
      ELSE
        changed := gte_small.enable(ours.target, ours.content, ours.embedding, ours.with_index, NULL, NULL, '{}');
      END IF;
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
      RAISE WARNING '% was not renewed: %', CASE WHEN embedding IS NULL THEN format('document search on table %s', ours.target)
          ELSE format('search on column "%s" of table %s', ours.embedding, ours.target) END, message
        USING DETAIL = detail, HINT = hint;
      CONTINUE;
    END;
    FOREACH renewed IN ARRAY changed LOOP
      RETURN NEXT;
    END LOOP;
  END LOOP;
  IF foreign_tables IS NOT NULL THEN
    RAISE NOTICE 'tables of other owners were left as they are: %', foreign_tables
      USING HINT = 'Their owners, or a superuser, call refresh_semantic_search().';
  END IF;
END
$body$;
COMMENT ON FUNCTION refresh_semantic_search() IS
  'after an update of the extension: renews the functions and indexes that an earlier version made in the tables'' schemas, and says which';
