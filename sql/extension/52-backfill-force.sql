-- Embedding all rows of a column again, after a change of model: embed_backfill(force => true).
--
-- A row does not say which model its vector is of. So the first pass goes over all rows. Every few
-- seconds its position is saved in the column's note (see embedding_columns), as "force":
-- {"fingerprint", "content", "leaf", "file", "block", "since", "own"}. A later call with the same model
-- and text columns resumes there. More passes follow, over the rows that other sessions wrote since the
-- first pass began: an UPDATE that does not change the text copies the old vector, perhaps to a block
-- that the pass has left.

-- The trigger whose comment is the note. For a partition, that is the trigger from which its trigger was
-- cloned.
CREATE FUNCTION gte_small.backfill_note_trigger(target pg_catalog.regclass, embedding pg_catalog.name)
  RETURNS pg_catalog.oid
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  WITH RECURSIVE ours (oid, parent) AS (
    SELECT t.oid, t.tgparentid
      FROM gte_small.embedding_columns(target) c JOIN pg_trigger t ON t.tgrelid = target AND t.tgname = c.trigger_name
     WHERE c.embedding = backfill_note_trigger.embedding
     UNION ALL
    SELECT t.oid, t.tgparentid FROM ours o JOIN pg_trigger t ON t.oid = o.parent
  )
  SELECT o.oid FROM ours o JOIN pg_trigger t ON t.oid = o.oid WHERE o.parent = 0 ORDER BY t.tgname DESC LIMIT 1
$body$;
COMMENT ON FUNCTION gte_small.backfill_note_trigger(pg_catalog.regclass, pg_catalog.name) IS
  'part of embed_backfill: the trigger whose comment is the note of an embedding column';

-- Changes the note: sets "force", or with NULL removes it and notes the model as the column's. False if the
-- comment is not a note, or if the lock on it was not available in time.
CREATE FUNCTION gte_small.backfill_note(job gte_small.backfill_job, force pg_catalog.jsonb, patience pg_catalog.text)
  RETURNS pg_catalog.bool
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  noted oid := gte_small.backfill_note_trigger(job.target, job.embedding);
  comment text;
  command text;
  note jsonb;
  before text := current_setting('lock_timeout');
BEGIN
  -- Waits for the lock and lets it go again, so that what is read next is not what somebody else
  -- is about to change. A table that was renamed meanwhile is waited for by its new name.
  FOR n IN 1 .. 100 LOOP
    SELECT format('COMMENT ON TRIGGER %I ON %s IS ', t.tgname, t.tgrelid::regclass) INTO command
      FROM pg_trigger t WHERE t.oid = noted;
    comment := obj_description(noted, 'pg_trigger');
    IF command IS NULL OR comment NOT LIKE 'gte-small%' THEN
      PERFORM set_config('lock_timeout', before, true);
      RETURN false;
    END IF;
    PERFORM set_config('lock_timeout', patience, true);
    BEGIN
      EXECUTE command || coalesce(quote_literal(comment), 'NULL');
      RAISE EXCEPTION USING ERRCODE = 'GT000', MESSAGE = 'taken back';
    EXCEPTION WHEN SQLSTATE 'GT000' THEN
      EXIT;
    WHEN undefined_table OR undefined_object OR invalid_schema_name THEN
    WHEN lock_not_available THEN
      PERFORM set_config('lock_timeout', before, true);
      RETURN false;
    END;
  END LOOP;
  BEGIN
    comment := obj_description(noted, 'pg_trigger');
    BEGIN
      note := CASE WHEN comment LIKE 'gte-small {%' THEN substr(comment, 11)::jsonb ELSE '{}' END;
    EXCEPTION WHEN invalid_text_representation OR untranslatable_character THEN
      note := '{}';
    END;
    IF force IS NOT NULL THEN
      -- "mixed" was set by others, during the walk that is going on.
      note := note || jsonb_build_object('force', force || CASE
        WHEN note #>> '{force,fingerprint}' = force ->> 'fingerprint' AND note #> '{force,mixed}' IS NOT NULL
        THEN jsonb_build_object('mixed', note #> '{force,mixed}') ELSE '{}' END);
    ELSE
      note := note - ARRAY['mixed', 'force', 'outdated', 'began', CASE WHEN job.rows > 0 THEN 'empty' END] || jsonb_build_object('fingerprint', job.fingerprint)
           || CASE WHEN note #> '{force,mixed}' = 'true' THEN '{"mixed": true}'::jsonb ELSE '{}' END;
    END IF;
    EXECUTE command || quote_literal('gte-small ' || note::text);
    PERFORM set_config('lock_timeout', before, true);
    RETURN true;
  EXCEPTION WHEN lock_not_available THEN
    PERFORM set_config('lock_timeout', before, true);
    RETURN false;
  END;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_note(gte_small.backfill_job, pg_catalog.jsonb, pg_catalog.text) IS
  'part of embed_backfill: writes the progress of a forced backfill into the note of its column';

-- The lock of a forced backfill, until the end of the transaction. Only the owner gets it: an advisory
-- lock, which any role can hold, would let any role keep the owner's backfill from running.
CREATE FUNCTION gte_small.backfill_force_acquire(target pg_catalog.regclass) RETURNS pg_catalog.bool
  AS 'MODULE_PATHNAME', 'backfill_force_acquire_gte_small'
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION gte_small.backfill_force_acquire(pg_catalog.regclass) IS
  'part of embed_backfill: takes the lock of a forced backfill; false if another session has it; for the table''s owner';

-- Only one session at a time may embed all rows of a table again. Each transaction takes the lock anew,
-- because a session-level lock would outlive a call that failed. Each transaction also checks that the
-- pass still covers all rows: otherwise rows that policies hide, or that have embeddings of other
-- columns, would be noted as done.
CREATE FUNCTION gte_small.backfill_force_lock(job gte_small.backfill_job, looks pg_catalog.int4 DEFAULT 0)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  held bool := false;
  hiding oid;
BEGIN
  -- Between two transactions of a walk its lock is free for an instant: a newcomer looks more than once.
  -- It does not try to take the lock meanwhile, because the walk would then fail. The number is that of
  -- src/functions/force.rs.
  FOR i IN 1 .. looks LOOP
    held := EXISTS (SELECT FROM pg_locks l
                     WHERE l.locktype = 'object' AND l.classid = 'pg_class'::regclass AND l.objid = job.target
                       AND l.objsubid = 26484 AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
                       AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()));
    EXIT WHEN held;
    PERFORM pg_sleep(0.005);
  END LOOP;
  IF held OR NOT gte_small.backfill_force_acquire(job.target) THEN
    RAISE EXCEPTION 'another session is embedding all rows of % again', job.target
      USING ERRCODE = 'object_in_use', DETAIL = 'Only one can do so at a time.',
            HINT = 'See application_name in pg_stat_activity for its progress.';
  END IF;
  SELECT l INTO hiding FROM unnest(job.target::oid || gte_small.backfill_leaves(job.target)) l
   WHERE row_security_active(l) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'row-level security hides rows of table % from %', hiding::regclass, current_user
      USING ERRCODE = 'insufficient_privilege',
            DETAIL = 'Hidden rows would keep embeddings of the former model, and the column be noted as of the one in use.',
            HINT = format('Call it as a role with BYPASSRLS, or ALTER TABLE %s NO FORCE ROW LEVEL SECURITY first.', hiding::regclass);
  END IF;
  IF job.content IS DISTINCT FROM (SELECT c.content FROM gte_small.embedding_columns(job.target) c
                                    WHERE c.embedding = job.embedding ORDER BY c.trigger_name DESC LIMIT 1) THEN
    IF NOT EXISTS (SELECT FROM gte_small.embedding_columns(job.target) c WHERE c.embedding = job.embedding) THEN
      RAISE EXCEPTION 'column % of % has no trigger of embed_trigger() now', quote_ident(job.embedding), job.target
        USING ERRCODE = 'object_not_in_prerequisite_state',
              DETAIL = 'Some rows have new embeddings and some those of before.',
              HINT = format('SELECT enable_semantic_search(%1$L, ...) for the column, then CALL embed_backfill(%1$L, force => true) again.', job.target);
    END IF;
    RAISE EXCEPTION 'column % of % embeds other columns now', quote_ident(job.embedding), job.target
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'Some rows have embeddings of the former columns and some of those before.',
            HINT = format('CALL embed_backfill(%L, force => true) again.', job.target);
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_force_lock(gte_small.backfill_job, pg_catalog.int4) IS
  'part of embed_backfill: sees that only one session forces a backfill';

-- Starts the pass over all rows, or resumes the one that an earlier call with the same model left.
CREATE FUNCTION gte_small.backfill_force_begin(job gte_small.backfill_job) RETURNS gte_small.backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  former jsonb;
  leaf oid;
  resumed bool := false;
BEGIN
  IF NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = job.target), 'USAGE') THEN
    RAISE EXCEPTION 'must be owner of table %', job.target
      USING ERRCODE = 'insufficient_privilege',
            DETAIL = 'To embed all rows again changes what is noted of the column. Nothing was embedded.',
            HINT = 'Ask the owner, or leave force out to embed the rows that have no embedding.';
  END IF;
  IF EXISTS (SELECT FROM gte_small.embedding_columns(job.target) c
               JOIN pg_trigger t ON t.tgrelid = job.target AND t.tgname = c.trigger_name
              WHERE c.embedding = job.embedding AND t.tgparentid <> 0) THEN
    RAISE EXCEPTION '% is a partition', job.target
      USING ERRCODE = 'wrong_object_type',
            DETAIL = 'The vectors of a partitioned table must be of one model. Nothing was embedded.',
            HINT = 'Name the partitioned table.';
  END IF;
  PERFORM gte_small.backfill_force_lock(job, looks => 5);

  job.next_since := job.since;
  job.saved := clock_timestamp();
  SELECT c.note -> 'force' INTO former FROM gte_small.embedding_columns(job.target) c
   WHERE c.embedding = job.embedding ORDER BY c.trigger_name DESC LIMIT 1;
  IF former ->> 'fingerprint' = job.fingerprint AND former -> 'content' = to_jsonb(job.content) AND former ->> 'since' ~ '^\d{1,10}$' THEN
    leaf := to_regclass(former ->> 'leaf');
    IF leaf = ANY (job.leaves) THEN
      resumed := true;
      job.since := (former ->> 'since')::xid;
      BEGIN
        job.own := ARRAY(SELECT n::text::xid
                           FROM jsonb_array_elements(former -> 'own') span,
                                generate_series((span ->> 0)::int8, least((span ->> 1)::int8, (span ->> 0)::int8 + 1000000)) n);
      EXCEPTION WHEN data_exception THEN
        -- Somebody edited the comment: those rows are checked again.
        job.own := '{}';
      END;
      job.leaf := array_position(job.leaves, leaf) - 1;
      job.walked := job.leaves[:job.leaf];
      -- VACUUM FULL, CLUSTER and the like make a new file, in which rows stand elsewhere.
      IF former -> 'file' = to_jsonb(pg_relation_filenode(leaf)::int8) AND former ->> 'block' ~ '^\d{1,10}$' THEN
        job.at := format('(%s,0)', former ->> 'block')::tid;
      END IF;
    END IF;
  END IF;
  -- Nobody's rows are locked here: this may wait.
  job.noted := gte_small.backfill_note(job, gte_small.backfill_force_place(job), '0');
  -- All vectors of before are replaced; those that come during the walk are noted anew.
  IF NOT resumed THEN
    PERFORM gte_small.note_settle(job.target, job.embedding, false);
  END IF;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_force_begin(gte_small.backfill_job) IS
  'part of embed_backfill: begins or resumes a forced backfill';

-- The position from which a later call would resume, as the note keeps it.
CREATE FUNCTION gte_small.backfill_force_place(job gte_small.backfill_job) RETURNS pg_catalog.jsonb
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT jsonb_build_object('fingerprint', job.fingerprint, 'content', job.content, 'since', job.since::text, 'leaf', leaf::regclass::text,
                            'file', pg_relation_filenode(leaf)::int8, 'block', block,
                            -- The last thousand spans of its transactions, first and last of each: a quiet server
                            -- has one, a busy one a span for each batch. Rows of those before run the model again
                            -- to be seen as right.
                            'own', (SELECT coalesce(jsonb_agg(s.span), '[]')
                                      FROM (SELECT jsonb_build_array(min(n), max(n)) AS span
                                              FROM (SELECT n, n - row_number() OVER (ORDER BY n) AS island
                                                      FROM (SELECT DISTINCT x::text::int8 AS n FROM unnest(job.own) x) d) i
                                             GROUP BY island ORDER BY min(n) DESC LIMIT 1000) s))
    FROM (SELECT coalesce(job.hold_leaf, job.leaves[greatest(1, job.leaf + CASE WHEN job.until IS NULL THEN 1 ELSE 0 END)]) AS leaf,
                 CASE WHEN job.hold_leaf IS NOT NULL THEN job.hold_block
                      ELSE least(coalesce(gte_small.backfill_block(job.at), 0),
                                 (SELECT min(gte_small.backfill_block(s)) FROM unnest(job.skipped) s)) END AS block) w
$body$;
COMMENT ON FUNCTION gte_small.backfill_force_place(gte_small.backfill_job) IS
  'part of embed_backfill: the place of a forced backfill as its column''s note keeps it';

-- Saves the position every five seconds, in its own transaction: COMMENT takes a lock that conflicts with
-- VACUUM, and sessions that wait for a batch's rows must not wait for VACUUM as well.
CREATE FUNCTION gte_small.backfill_force_save(job gte_small.backfill_job) RETURNS gte_small.backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  IF job.phase = 'force' AND job.noted AND job.leaf > 0 AND job.until IS NOT NULL
     AND clock_timestamp() - job.saved > interval '5 seconds' THEN
    job.own := job.own || pg_current_xact_id()::xid;
    PERFORM gte_small.backfill_note(job, gte_small.backfill_force_place(job), '100ms');
    job.saved := clock_timestamp();
  END IF;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_force_save(gte_small.backfill_job) IS
  'part of embed_backfill: saves the place of a forced backfill';

-- After a pass: decides whether another one follows, and over which rows.
CREATE FUNCTION gte_small.backfill_force_pass(job gte_small.backfill_job) RETURNS gte_small.backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  attached oid[];
BEGIN
  IF job.given_up > 0 THEN
    -- The note keeps "force": the next call goes on where the first of these rows is.
    IF job.noted AND job.phase = 'force' THEN
      PERFORM gte_small.backfill_note(job, gte_small.backfill_force_place(job), '0');
    END IF;
    job.phase := NULL;
    RETURN job;
  END IF;
  IF job.phase = 'force' THEN
    attached := ARRAY(SELECT l FROM unnest(gte_small.backfill_leaves(job.target)) l
                       WHERE l <> ALL (job.walked) AND l <> ALL (job.leaves) ORDER BY l);
    IF cardinality(attached) > 0 THEN
      job.leaves := attached;
      RETURN job;
    END IF;
    job.phase := 'moved';
  ELSIF job.pass_wrote = 0 THEN
    IF job.noted THEN
      -- Rows that could not be written have their former vectors: the column is not done.
      PERFORM gte_small.backfill_note(job, CASE WHEN job.hold_leaf IS NOT NULL THEN gte_small.backfill_force_place(job) END, '0');
    END IF;
    job.phase := NULL;
    RETURN job;
  ELSE
    job.since := job.next_since;
  END IF;
  job.leaves := gte_small.backfill_leaves(job.target);
  job.next_since := pg_snapshot_xmin(pg_current_snapshot())::xid;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_force_pass(gte_small.backfill_job) IS
  'part of embed_backfill: what a forced backfill does after a pass';
