-- Errors of this extension where PostgreSQL's own would say neither the consequence nor an action.

-- Refuses what is no table, and a table whose rows this session can't read. "caller" is the function that
-- the user called, "columns" what it reads; NULL is the whole row.
CREATE FUNCTION gte_small.check_readable(target pg_catalog.regclass, caller pg_catalog.text, columns pg_catalog.name[] DEFAULT NULL)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  relation pg_class;
  hidden name;
BEGIN
  IF target IS NULL THEN
    RAISE EXCEPTION 'no table is named'
      USING ERRCODE = 'null_value_not_allowed', DETAIL = format('%s() needs a table, and the argument is NULL.', caller),
            HINT = format('Name one: %s(''docs'').', caller);
  END IF;
  SELECT * INTO relation FROM pg_class c WHERE c.oid = target;
  IF relation.oid IS NULL THEN
    RAISE EXCEPTION 'no relation has the OID %', target::oid
      USING ERRCODE = 'undefined_table', DETAIL = 'The table was dropped, or there was none. Nothing was read.',
            HINT = format('Name a table: %s(''docs'').', caller);
  ELSIF relation.relkind NOT IN ('r', 'p') THEN
    RAISE EXCEPTION '% is not a table', target
      USING ERRCODE = 'wrong_object_type', DETAIL = 'A trigger fills an embedding column, and only tables have such columns.',
            HINT = 'Name the table whose rows it shows.';
  ELSIF relation.relpersistence = 't' AND relation.relnamespace <> pg_my_temp_schema() THEN
    RAISE EXCEPTION '% is a temporary table of another session', target
      USING ERRCODE = 'feature_not_supported', DETAIL = 'Only that session can read it.',
            HINT = format('Call %s() there.', caller);
  ELSIF relation.relpersistence = 'u' AND pg_is_in_recovery() THEN
    RAISE EXCEPTION '% is an unlogged table, and this server is a standby', target
      USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'Its rows are on the primary only.',
            HINT = format('Call %s() on the primary.', caller);
  ELSIF has_table_privilege(target, 'SELECT') THEN
    RETURN;
  END IF;
  hidden := (SELECT c FROM unnest(columns) WITH ORDINALITY AS u (c, n)
              WHERE NOT has_column_privilege(target, c, 'SELECT') ORDER BY n LIMIT 1);
  IF columns IS NULL OR hidden IS NOT NULL THEN
    RAISE EXCEPTION 'permission denied for %table %', coalesce('column ' || quote_ident(hidden) || ' of ', ''), target
      USING ERRCODE = 'insufficient_privilege',
            DETAIL = format('%s() reads the rows with the rights of its caller %I.', caller, current_user),
            HINT = format('The owner %s allows it: GRANT SELECT ON %s TO %I.', relation.relowner::regrole, target, current_user);
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.check_readable(pg_catalog.regclass, pg_catalog.text, pg_catalog.name[]) IS
  'part of embedding_status and others: refuses a table whose rows this session can''t read';
