-- The user's calls embed_backfill() and embed_backfill_step(), and their messages.

-- Refuses calls that can't succeed, before any work.
CREATE FUNCTION gte_small.backfill_check(target pg_catalog.regclass, batch_size pg_catalog.int4, force pg_catalog.bool)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  owners text;
  relation record;
BEGIN
  IF target IS NULL OR batch_size IS NULL OR force IS NULL THEN
    RAISE EXCEPTION '% must not be NULL',
        CASE WHEN target IS NULL THEN 'target' WHEN batch_size IS NULL THEN 'batch_size' ELSE 'force' END
      USING ERRCODE = 'null_value_not_allowed', DETAIL = 'Nothing was embedded.',
            HINT = CASE WHEN target IS NULL THEN 'Name a table: embed_backfill(''documents'').' ELSE 'Leave it out to have its default.' END;
  END IF;
  IF batch_size < 1 THEN
    RAISE EXCEPTION 'batch_size is %', batch_size
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Nothing was embedded.',
            HINT = 'Take 1 or more rows at a time; 256 is the default.';
  END IF;
  IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION 'a backfill needs the isolation level read committed, and this is %',
        current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state',
            DETAIL = 'Rows that others change meanwhile would end it with serialization failures. Nothing was embedded.',
            HINT = 'SET default_transaction_isolation TO ''read committed'' and call it again.';
  END IF;
  IF current_setting('transaction_read_only')::bool THEN
    RAISE EXCEPTION 'a backfill writes, and %', CASE WHEN pg_is_in_recovery() THEN 'this server is a standby'
        ELSE 'this transaction is read-only' END
      USING ERRCODE = 'read_only_sql_transaction', DETAIL = 'Nothing was embedded.',
            HINT = CASE WHEN pg_is_in_recovery() THEN 'Call it on the primary; its embeddings come along.'
                   ELSE 'SET default_transaction_read_only TO off, or SET TRANSACTION READ WRITE, and call it again.' END;
  END IF;

  SELECT c.relkind, CASE c.relkind WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view' WHEN 'f' THEN 'a foreign table'
                    WHEN 'i' THEN 'an index' WHEN 'I' THEN 'an index' WHEN 'S' THEN 'a sequence' WHEN 'c' THEN 'a composite type' ELSE 'a TOAST table' END AS kind,
         pg_is_other_temp_schema(c.relnamespace) AS elsewhere
    INTO relation FROM pg_class c WHERE c.oid = target;
  IF NOT FOUND AND gte_small.on_citus() THEN
    -- Citus hides shards from sessions that are not its own.
    RAISE EXCEPTION '% is a shard, or does not exist', target
      USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'This session can''t see its rows. Nothing was embedded.',
            HINT = 'Call it on the coordinator, with the name of the distributed table.';
  ELSIF NOT FOUND THEN
    RAISE EXCEPTION 'table with OID % does not exist', target::oid
      USING ERRCODE = 'undefined_table', DETAIL = 'Nothing was embedded.', HINT = 'Name a table that exists: embed_backfill(''documents'').';
  ELSIF relation.relkind NOT IN ('r', 'p') THEN
    RAISE EXCEPTION '% is %', target, relation.kind
      USING ERRCODE = 'wrong_object_type',
            DETAIL = 'A backfill writes to the rows of a table. Nothing was embedded.',
            HINT = CASE relation.relkind WHEN 'f' THEN 'Embed its rows on the server that holds them.' ELSE 'Name the table that stores the rows.' END;
  ELSIF relation.elsewhere THEN
    RAISE EXCEPTION 'table % is a temporary table of another session', target
      USING ERRCODE = 'feature_not_supported', DETAIL = 'Only that session can read it. Nothing was embedded.',
            HINT = 'Call it in the session that made the table.';
  END IF;

  -- As with any UPDATE: a table's owner chooses its triggers, index expressions and policies.
  SELECT string_agg(DISTINCT quote_ident(r.rolname), ', ') INTO owners
    FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
   WHERE (c.oid = target OR c.oid = ANY (gte_small.backfill_leaves(target))) AND NOT r.rolsuper;
  IF owners IS NOT NULL AND (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user) THEN
    RAISE WARNING 'a superuser is writing to table % of %', target, owners
      USING DETAIL = 'The owner''s triggers and index expressions run with a superuser''s rights.',
            HINT = 'Where the owner is not trusted, SET ROLE to him first.';
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_check(pg_catalog.regclass, pg_catalog.int4, pg_catalog.bool) IS
  'part of embed_backfill: refuses what can''t be done, before any work';

-- The rights on each table that stores rows: a backfill names partitions, for which a right on the parent is not enough.
-- The note of the column is the parent's.
CREATE FUNCTION gte_small.backfill_rights(target pg_catalog.regclass, embedding pg_catalog.name, content pg_catalog.name[])
  RETURNS pg_catalog.void
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  refused record;
BEGIN
  SELECT c.oid::regclass AS leaf, quote_ident(n.nspname) AS place, has_schema_privilege(n.oid, 'USAGE') AS reached INTO refused
    FROM unnest(target::oid || gte_small.backfill_leaves(target)) l JOIN pg_class c ON c.oid = l JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE NOT (has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(c.oid, embedding, 'UPDATE')
              AND (c.relkind = 'p' OR has_table_privilege(c.oid, 'SELECT')
                   OR (SELECT bool_and(has_column_privilege(c.oid, a, 'SELECT')) FROM unnest(content || embedding || '{ctid,xmin}'::name[]) a)))
   LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'permission denied for %', CASE WHEN refused.reached THEN 'table ' || refused.leaf ELSE 'schema ' || refused.place END
      USING ERRCODE = 'insufficient_privilege',
            DETAIL = format('A backfill reads the rows of %s and writes its column %I. Nothing was embedded.', refused.leaf, embedding),
            HINT = format('%s, or call it as the owner.', CASE WHEN refused.reached
                     THEN format('GRANT SELECT, UPDATE (%I) ON %s TO %I', embedding, refused.leaf, current_user)
                     ELSE format('GRANT USAGE ON SCHEMA %s TO %I', refused.place, current_user) END);
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_rights(pg_catalog.regclass, pg_catalog.name, pg_catalog.name[]) IS
  'part of embed_backfill: refuses a caller who may not read or write the rows';

-- The columns that a trigger names and the table no longer has: a trigger's arguments are strings, and
-- PostgreSQL records no dependency for them.
CREATE FUNCTION gte_small.columns_gone(target pg_catalog.regclass, named pg_catalog.name[]) RETURNS pg_catalog.name[]
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT array_agg(n ORDER BY place) FROM unnest(named) WITH ORDINALITY AS u (n, place)
   WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = n AND NOT a.attisdropped)
$body$;
COMMENT ON FUNCTION gte_small.columns_gone(pg_catalog.regclass, pg_catalog.name[]) IS
  'part of embedding_status: those of the columns that the table has no more';

-- Reports the progress: to other sessions by application_name, which has 63 bytes, until the end of the transaction,
-- and to this session by a NOTICE every ten seconds. "more" ends the NOTICE.
CREATE FUNCTION gte_small.backfill_tell(job gte_small.backfill_job, more pg_catalog.text DEFAULT '') RETURNS gte_small.backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  seconds float8;
  rate float8;
  rest text := '';
BEGIN
  IF job.began IS NULL THEN
    job.began := clock_timestamp();
    job.told := job.began;
    job.total := gte_small.backfill_count(job, false);
  END IF;
  seconds := greatest(1e-3, extract(epoch FROM clock_timestamp() - job.began));
  rate := job.rows / seconds;
  IF job.rows > 0 THEN
    rest := format(', %s rows/s, %s s left', round(rate::numeric, CASE WHEN rate < 10 THEN 1 ELSE 0 END),
                   ceil(greatest(0, job.total - job.rows) / rate));
  END IF;
  job.progress := format('gte-small: %s %s/%s%s', left((SELECT c.relname FROM pg_class c WHERE c.oid = job.target), 16),
                         job.rows, job.total, replace(rest, ', ', ' '));
  -- Citus knows its own sessions by this name; other sessions on a worker don't see the shards.
  IF NOT starts_with(current_setting('application_name'), 'citus_') THEN
    PERFORM set_config('application_name', job.progress, true);
  END IF;
  IF clock_timestamp() - job.told > interval '10 seconds' THEN
    RAISE NOTICE '%.%: % of about % rows%', job.target, quote_ident(job.embedding), job.rows, job.total, rest || more;
    job.told := clock_timestamp();
  END IF;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_tell(gte_small.backfill_job, pg_catalog.text) IS
  'part of embed_backfill: says how far a backfill is';

-- Reports the end of a call: what was done, what was left out, and the rows that failed. Those end embed_backfill(),
-- which has committed the rest, with an error. A step is a part of the caller's transaction, which an error would
-- undo: it warns.
CREATE FUNCTION gte_small.backfill_end(jobs gte_small.backfill_job[], step pg_catalog.bool) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  job gte_small.backfill_job;
  last int;
  seconds float8;
  left_over int8;
  message text; detail text; hint text;
BEGIN
  FOREACH job IN ARRAY jobs LOOP
    IF job.began IS NOT NULL THEN
      seconds := greatest(1e-3, extract(epoch FROM clock_timestamp() - job.began));
      RAISE NOTICE '%.%: % rows embedded in % s (% rows/s)', job.target, quote_ident(job.embedding), job.rows,
        round(seconds::numeric, 1), round((job.rows / seconds)::numeric, 1);
    END IF;
    left_over := CASE WHEN job.given_up > 0 THEN job.given_up ELSE greatest(0, job.remaining - job.failed) END;
    IF left_over > 0 THEN
      RAISE NOTICE '% rows of % were left out: other sessions have them locked, or a trigger kept them from being written',
          left_over, job.target
        USING HINT = 'Call it again.';
    END IF;
  END LOOP;
  last := (SELECT max(n) FROM generate_subscripts(jobs, 1) n WHERE jobs[n].failed > 0);
  FOR n IN 1 .. coalesce(last, 0) LOOP
    job := jobs[n];
    CONTINUE WHEN job.failed = 0;
    message := format('%s of %s.%I could not be embedded: %s%s', CASE job.failed WHEN 1 THEN '1 row' ELSE job.failed || ' rows' END,
                      job.target, job.embedding, array_to_string(job.failed_rows, ', '),
                      CASE WHEN job.failed > cardinality(job.failed_rows) THEN ', ...' END);
    detail := format('Row %s: %s (SQLSTATE %s). %s', job.failed_rows[1], job.failure[2], job.failure[1],
                     CASE WHEN job.hold_leaf IS NOT NULL THEN 'Rows that can''t be written keep their former embeddings.'
                     WHEN job.failed > 1 THEN 'They have no embedding, and no search finds them.'
                     ELSE 'It has no embedding, and no search finds it.' END);
    hint := concat_ws(' ', nullif(job.failure[3], ''), format('Mend the cause, then CALL embed_backfill(%L%s) again.', job.target,
                      CASE WHEN job.next_since IS NOT NULL THEN ', force => true' END));
    IF step OR n < last THEN
      RAISE WARNING USING MESSAGE = message, DETAIL = detail, HINT = hint, ERRCODE = job.failure[1];
    ELSE
      RAISE EXCEPTION USING MESSAGE = message, DETAIL = detail, HINT = hint, ERRCODE = job.failure[1];
    END IF;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_end(gte_small.backfill_job[], pg_catalog.bool) IS
  'part of embed_backfill: says what a backfill did and what it left';

CREATE FUNCTION gte_small.backfill_no_commit(procedure_name pg_catalog.text) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  RAISE EXCEPTION '% can''t run inside a transaction block', procedure_name
    USING ERRCODE = 'invalid_transaction_termination',
          DETAIL = 'It commits after each batch, so that nobody waits for its locks and nothing is lost. Nothing was embedded.',
          HINT = 'Call it in autocommit mode (psycopg: connect(..., autocommit=True)), alone in its statement and outside of functions, or call embed_backfill_step() until it returns 0.';
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_no_commit(pg_catalog.text) IS
  'part of embed_backfill: refuses to run where COMMIT is not allowed';

CREATE PROCEDURE embed_backfill(target pg_catalog.regclass, batch_size pg_catalog.int4 DEFAULT 256,
    force pg_catalog.bool DEFAULT false, embedding pg_catalog.name DEFAULT NULL)
  LANGUAGE plpgsql
AS $body$
DECLARE
  jobs gte_small.backfill_job[];
  job gte_small.backfill_job;
  refusal pg_catalog.text;
BEGIN
  -- COMMIT fails in any block with an EXCEPTION clause; in a transaction block it fails otherwise, with
  -- the message that a DO inside another statement always gets. Messages are translated, hence both.
  BEGIN
    EXECUTE 'DO LANGUAGE plpgsql $do$ BEGIN COMMIT; END $do$';
  EXCEPTION WHEN invalid_transaction_termination THEN
    refusal := SQLERRM;
  END;
  BEGIN
    COMMIT;
  EXCEPTION WHEN invalid_transaction_termination THEN
    IF SQLERRM OPERATOR(pg_catalog.=) refusal THEN
      PERFORM gte_small.backfill_no_commit('embed_backfill()');
    END IF;
  END;

  IF gte_small.is_distributed(target) THEN
    CALL gte_small.backfill_shards(target, batch_size, force, embedding);
    RETURN;
  END IF;
  jobs := gte_small.backfill_jobs(target, batch_size, force, embedding);
  FOR i IN 1 .. pg_catalog.cardinality(jobs) LOOP
    job := jobs[i];
    IF force THEN
      job := gte_small.backfill_force_begin(job);
      COMMIT;
    END IF;
    LOOP
      IF force THEN
        PERFORM gte_small.backfill_force_lock(job);
      END IF;
      job := gte_small.backfill_tell(job);
      job := gte_small.backfill_batch(job);
      COMMIT;
      EXIT WHEN job.phase IS NULL;
      IF force THEN
        job := gte_small.backfill_force_save(job);
        COMMIT;
      END IF;
      -- Without a snapshot, which would keep VACUUM from cleaning up meanwhile.
      IF job.wait OPERATOR(pg_catalog.>) 0 THEN
        PERFORM pg_catalog.pg_sleep(job.wait);
        COMMIT;
      END IF;
    END LOOP;
    jobs[i] := job;
  END LOOP;
  PERFORM gte_small.backfill_end(jobs, step => false);
END
$body$;
COMMENT ON PROCEDURE embed_backfill(pg_catalog.regclass, pg_catalog.int4, pg_catalog.bool, pg_catalog.name) IS
  'embeds the rows that have no embedding, or with force all of them, in short transactions; run it as the table''s owner, whose triggers fire';

CREATE FUNCTION embed_backfill_step(target pg_catalog.regclass, batch_size pg_catalog.int4 DEFAULT 256,
    embedding pg_catalog.name DEFAULT NULL)
  RETURNS pg_catalog.int8
  LANGUAGE plpgsql
AS $body$
DECLARE
  jobs gte_small.backfill_job[];
  job gte_small.backfill_job;
  until pg_catalog.timestamptz := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) '0.75 seconds'::pg_catalog.interval;
BEGIN
  IF gte_small.is_distributed(target) THEN
    RETURN gte_small.backfill_shards_step(target, batch_size, embedding);
  END IF;
  jobs := gte_small.backfill_jobs(target, batch_size, false, embedding);
  FOR i IN 1 .. pg_catalog.cardinality(jobs) LOOP
    job := gte_small.backfill_anywhere(jobs[i]);
    -- One pass, up to the first rows; small batches of them until a second or batch_size is reached.
    LOOP
      BEGIN
        job := gte_small.backfill_batch(job);
        IF job.wrote OPERATOR(pg_catalog.=) 0 THEN
          RAISE EXCEPTION USING ERRCODE = 'GT000', MESSAGE = 'taken back';
        END IF;
      EXCEPTION WHEN SQLSTATE 'GT000' THEN
        -- Nothing was written: the locks of the tables that were walked go. What the job knows stays.
      END;
      EXIT WHEN job.upto IS NULL;
      job.batch_size := batch_size OPERATOR(pg_catalog.-) job.rows::pg_catalog.int4;
      EXIT WHEN job.batch_size OPERATOR(pg_catalog.<=) 0
        OR job.rows OPERATOR(pg_catalog.>) 0 AND pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) until;
    END LOOP;
    IF job.rows OPERATOR(pg_catalog.>) 0 THEN
      RETURN job.rows;
    END IF;
    jobs[i] := job;
  END LOOP;
  -- Nothing was embedded; perhaps because nothing that is missing can be.
  PERFORM gte_small.backfill_end(jobs, step => true);
  RETURN 0;
END
$body$;
COMMENT ON FUNCTION embed_backfill_step(pg_catalog.regclass, pg_catalog.int4, pg_catalog.name) IS
  'embeds one batch of the rows that have no embedding, in the caller''s transaction; returns how many, 0 = none is missing that can be embedded; run it as the table''s owner, whose triggers fire';

-- A step does not know where the last one ended. From a random block, it rarely has to read a large part
-- of the table that is already done.
CREATE FUNCTION gte_small.backfill_anywhere(job gte_small.backfill_job) RETURNS gte_small.backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  n int := cardinality(job.leaves);
  first int := 1 + floor(random() * n);
BEGIN
  IF n > 0 THEN
    job.wrap := floor(random() * pg_relation_size(job.leaves[first], 'main') / current_setting('block_size')::int8);
    job.at := format('(%s,0)', coalesce(job.wrap, 0))::tid;
    job.leaves := job.leaves[first:] || job.leaves[:first];
  END IF;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_anywhere(gte_small.backfill_job) IS
  'part of embed_backfill: lets a step begin at any block';
