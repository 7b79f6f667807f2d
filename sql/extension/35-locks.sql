-- Locks of what changes a table.
--
-- Whoever takes a weak lock first and a strong one later can deadlock with a writer, and PostgreSQL may end the
-- writer. So a function that changes a table takes SHARE UPDATE EXCLUSIVE first. No reader and no writer waits for
-- this lock, and only one session can have it. Then the function decides what it will change, and takes the
-- strongest lock of that at once.

-- Takes a lock until the end of the transaction: parents before children, as LOCK TABLE does, and the children in
-- the order of their OIDs.
CREATE FUNCTION gte_small.lock_for_change(target pg_catalog.regclass, mode pg_catalog.text, with_partitions pg_catalog.bool)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
BEGIN
  IF mode NOT IN ('SHARE UPDATE EXCLUSIVE', 'SHARE', 'SHARE ROW EXCLUSIVE', 'ACCESS EXCLUSIVE') THEN
    RAISE EXCEPTION 'lock mode "%" is not used', mode
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Nothing was locked.', HINT = 'Report it as a bug.';
  ELSIF current_setting('transaction_read_only')::bool THEN
    RAISE EXCEPTION 'table % can''t be changed in a read-only transaction', target
      USING ERRCODE = 'read_only_sql_transaction', DETAIL = 'Nothing was changed.',
            HINT = CASE WHEN pg_is_in_recovery() THEN 'Run it on the primary server; this one follows it.' ELSE 'SET transaction_read_only = off, or SET default_transaction_read_only = off for the session.' END;
  END IF;
  EXECUTE format('LOCK TABLE %s %s IN %s MODE', CASE WHEN with_partitions THEN '' ELSE 'ONLY' END, target, mode);
EXCEPTION WHEN lock_not_available THEN
  RAISE EXCEPTION 'table % is in use, and lock_timeout is over', target
    USING ERRCODE = 'lock_not_available', DETAIL = format('It is to be changed under a lock (%s) that waits for others to end; nothing was changed.', mode),
          HINT = 'Try again, or see who holds it: SELECT pid, state, query FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE relation = '
                 || quote_literal(target) || '::regclass;';
END
$body$;
COMMENT ON FUNCTION gte_small.lock_for_change(pg_catalog.regclass, pg_catalog.text, pg_catalog.bool) IS
  'part of enable_semantic_search and others: takes the lock of a change';
