-- A backfill of a distributed table: each shard is filled on the server that has it, by some calls of
-- embed_backfill_step(), or with force by embed_backfill(). The workers work side by side, on a few shards of each at a
-- time: each shard has a session of its own there, which loads the model.

-- The shards of a table. The nodes take turns in the order. The shard of a partitioned table is a partitioned table.
CREATE FUNCTION gte_small.shards(target pg_catalog.regclass) RETURNS pg_catalog.int8[]
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  RETURN coalesce((
    SELECT array_agg(p.shardid ORDER BY p.turn, p.groupid, p.shardid)
      FROM (SELECT s.shardid, min(l.groupid) AS groupid, row_number() OVER (PARTITION BY min(l.groupid) ORDER BY s.shardid) AS turn
              FROM pg_dist_shard s JOIN pg_dist_placement l ON l.shardid = s.shardid
             WHERE s.logicalrelid = target
             GROUP BY s.shardid) p), '{}');
END
$body$;
COMMENT ON FUNCTION gte_small.shards(pg_catalog.regclass) IS
  'part of embed_backfill: the shards of a distributed table';

-- Runs a call on shards, on each server that has one: of a reference table, all nodes have a copy. "number" is the size
-- of a batch or of a sample. "count" counts the embeddings.
CREATE FUNCTION gte_small.run_on_shards(
    shards pg_catalog.int8[], task pg_catalog.text, embedding pg_catalog.name, number pg_catalog.int4)
  RETURNS TABLE (shard pg_catalog.int8, place pg_catalog.text, success pg_catalog.bool, result pg_catalog.text)
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_column
DECLARE
  chosen record;
  head CONSTANT text := format(CASE task WHEN 'steps' THEN 'CALL gte_small.backfill_steps(' WHEN 'step' THEN 'SELECT %s.embed_backfill_step('
    WHEN 'verify' THEN 'SELECT pg_catalog.to_jsonb(v) FROM %s.embed_verify(' ELSE 'CALL %s.embed_backfill(' END, gte_small.extension_schema());
  tail CONSTANT text := format(', %s', coalesce(number::text, 'NULL'))
    || CASE task WHEN 'fill' THEN ', false' WHEN 'force' THEN ', true' ELSE '' END
    || format(', %L)', embedding) || CASE task WHEN 'verify' THEN ' v' ELSE '' END;
BEGIN
  SELECT array_agg(s.id ORDER BY s.n, s.nodename, s.nodeport) AS ids, array_agg(s.nodename ORDER BY s.n, s.nodename, s.nodeport) AS names, array_agg(s.nodeport ORDER BY s.n, s.nodename, s.nodeport) AS ports,
         array_agg(CASE task WHEN 'count' THEN format('SELECT pg_catalog.count(%I) FROM %s', embedding, s.named)
                   ELSE head || quote_literal(s.named) || tail END ORDER BY s.n, s.nodename, s.nodeport) AS statements, array_agg(s.named ORDER BY s.n, s.nodename, s.nodeport) AS named
    INTO chosen
    FROM (SELECT u.n, u.id, d.nodename::text, d.nodeport, shard_name(h.logicalrelid, h.shardid, false) AS named
            FROM unnest(shards) WITH ORDINALITY AS u (id, n)
            JOIN pg_dist_shard h ON h.shardid = u.id
            JOIN pg_dist_placement l ON l.shardid = u.id
            JOIN pg_dist_node d ON d.groupid = l.groupid AND d.noderole = 'primary') s;
  RETURN QUERY SELECT u.id, u.id::text, false, 'no node has it' FROM unnest(shards) u (id) WHERE chosen.ids IS NULL OR u.id <> ALL (chosen.ids);
  IF chosen.ids IS NOT NULL THEN
    -- It answers in the order of its arguments.
    RETURN QUERY SELECT chosen.ids[r.n], format('%s on %s:%s', chosen.named[r.n], r.node_name, r.node_port), r.success, r.result
      FROM (SELECT m.*, row_number() OVER () AS n FROM master_run_on_worker(chosen.names, chosen.ports, chosen.statements, true) m) r;
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.run_on_shards(pg_catalog.int8[], pg_catalog.text, pg_catalog.name, pg_catalog.int4) IS
  'part of embed_backfill: runs a call on shards of a distributed table, side by side';

-- The shards of one turn: at most four of each node.
CREATE FUNCTION gte_small.shards_of_a_turn(shards pg_catalog.int8[]) RETURNS pg_catalog.int8[]
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  RETURN coalesce((
    SELECT array_agg(r.shard ORDER BY r.n)
      FROM (SELECT u.shard, u.n, row_number() OVER (PARTITION BY p.groupid ORDER BY u.n) AS place
              FROM unnest(shards) WITH ORDINALITY AS u (shard, n)
              LEFT JOIN (SELECT l.shardid, min(l.groupid) AS groupid FROM pg_dist_placement l GROUP BY l.shardid) p ON p.shardid = u.shard) r
     WHERE r.place <= 4), '{}');
END
$body$;
COMMENT ON FUNCTION gte_small.shards_of_a_turn(pg_catalog.int8[]) IS
  'part of embed_backfill: the shards that are filled at the same time';

CREATE FUNCTION gte_small.shards_left(shards pg_catalog.int8[], turn pg_catalog.int8[]) RETURNS pg_catalog.int8[]
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT coalesce(array_agg(u.shard ORDER BY u.n), '{}')
    FROM unnest(shards) WITH ORDINALITY AS u (shard, n) WHERE u.shard <> ALL (turn)
$body$;
COMMENT ON FUNCTION gte_small.shards_left(pg_catalog.int8[], pg_catalog.int8[]) IS
  'part of embed_backfill: the shards that come after a turn';

-- The embeddings on some shards. A shard whose server does not answer counts as empty.
CREATE FUNCTION gte_small.embeddings_on_shards(shards pg_catalog.int8[], embedding pg_catalog.name) RETURNS pg_catalog.int8
  LANGUAGE sql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT coalesce(sum(CASE WHEN r.success THEN r.result::int8 END)::int8, 0) FROM gte_small.run_on_shards(shards, 'count', embedding, NULL) r
$body$;
COMMENT ON FUNCTION gte_small.embeddings_on_shards(pg_catalog.int8[], pg_catalog.name) IS
  'part of embed_backfill: how many rows of some shards have an embedding';

-- The models of the nodes. NULL for a node without a model, or one that can't be reached.
CREATE FUNCTION gte_small.models_of_nodes(OUT place pg_catalog.text, OUT fingerprint pg_catalog.text)
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  RETURN QUERY SELECT format('%s:%s', n.nodename, n.nodeport), CASE WHEN r.success THEN r.result END
    FROM run_command_on_all_nodes('SELECT m.fingerprint FROM gte_small.embed_model() m', true, true) r
    JOIN pg_dist_node n ON n.nodeid = r.nodeid
   ORDER BY n.nodeid;
END
$body$;
COMMENT ON FUNCTION gte_small.models_of_nodes() IS
  'part of embedding_status: the model of each node of Citus';

CREATE FUNCTION gte_small.require_one_model() RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  models text[] := ARRAY(SELECT DISTINCT coalesce(m.fingerprint, '') FROM gte_small.models_of_nodes() m);
BEGIN
  IF cardinality(models) > 1 OR models = '{""}' THEN
    RAISE EXCEPTION 'the nodes do not have one model'
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = format('%s. Nothing was embedded.', (SELECT string_agg(format('%s: %s', m.place, coalesce(left(m.fingerprint, 12), 'none')), ', ')
                                                            FROM gte_small.models_of_nodes() m)),
            HINT = 'Set gte_small.model_path to the same model on all nodes. SELECT * FROM run_command_on_all_nodes(''SELECT fingerprint FROM embed_model()'') shows them.';
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.require_one_model() IS
  'part of embed_backfill: refuses a backfill on nodes with different models';

-- Other sessions read and write the shards. They would wait for the locks of this transaction, and it for them.
CREATE FUNCTION gte_small.require_no_changes(target pg_catalog.regclass) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
    RAISE EXCEPTION 'this transaction has changed something, and other sessions work on the shards of %', target
      USING ERRCODE = 'active_sql_transaction', DETAIL = 'They would wait for this one without end; nothing was done.', HINT = 'COMMIT first.';
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.require_no_changes(pg_catalog.regclass) IS
  'part of embed_backfill_step and embed_verify: refuses to wait for shards that this transaction may have locked';

-- Batches of one shard, for three seconds. A session loads the model once for all of them.
-- No SET clause: the user's triggers and policies run in it, and it commits.
CREATE PROCEDURE gte_small.backfill_steps(target pg_catalog.regclass, batch_size pg_catalog.int4, embedding pg_catalog.name,
    INOUT embedded pg_catalog.int8 DEFAULT NULL)
  LANGUAGE plpgsql
AS $body$
DECLARE
  one_step CONSTANT pg_catalog.text := pg_catalog.format('SELECT %s.embed_backfill_step($1, $2, $3)', gte_small.extension_schema());
  until CONSTANT pg_catalog.timestamptz := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) '3 seconds'::pg_catalog.interval;
  wrote pg_catalog.int8;
BEGIN
  embedded := 0;
  LOOP
    EXECUTE one_step INTO wrote USING target, batch_size, embedding;
    COMMIT;
    embedded := embedded OPERATOR(pg_catalog.+) wrote;
    EXIT WHEN wrote OPERATOR(pg_catalog.=) 0 OR pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) until;
  END LOOP;
END
$body$;
COMMENT ON PROCEDURE gte_small.backfill_steps(pg_catalog.regclass, pg_catalog.int4, pg_catalog.name, pg_catalog.int8) IS
  'part of embed_backfill: embeds some batches of a shard, on its server';

-- "task" is one of run_on_shards(): a batch for each shard of a turn, or some. Returns the number of rows, and the shards
-- that may have more.
CREATE FUNCTION gte_small.backfill_turn(
    INOUT shards pg_catalog.int8[], task pg_catalog.text, batch_size pg_catalog.int4, embedding pg_catalog.name,
    INOUT failures pg_catalog.text[], OUT embedded pg_catalog.int8)
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  turn int8[] := gte_small.shards_of_a_turn(shards);
  again int8[] := '{}';
  one record;
BEGIN
  embedded := 0;
  FOR one IN SELECT * FROM gte_small.run_on_shards(turn, task, embedding, batch_size) LOOP
    IF NOT one.success THEN
      failures := failures || format('%s: %s', one.place, one.result);
    ELSIF one.result::int8 > 0 THEN
      -- A row of a reference table counts once for each copy.
      embedded := embedded + one.result::int8;
      again := again || one.shard;
    END IF;
  END LOOP;
  -- Once more, after the others.
  shards := gte_small.shards_left(shards, turn) || ARRAY(SELECT DISTINCT s FROM unnest(again) s);
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_turn(pg_catalog.int8[], pg_catalog.text, pg_catalog.int4, pg_catalog.name, pg_catalog.text[]) IS
  'part of embed_backfill: batches of some shards';

CREATE FUNCTION gte_small.shards_failed(target pg_catalog.regclass, failures pg_catalog.text[]) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  IF cardinality(failures) > 0 THEN
    RAISE EXCEPTION 'shard %', failures[1]
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = format('%s shards of %s were left out for such a reason, this is the first. The others are done.', cardinality(failures), target),
            HINT = 'Mend it on that node, and call it again.';
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.shards_failed(pg_catalog.regclass, pg_catalog.text[]) IS
  'part of embed_backfill: raises the error of the first shard that failed';

-- "phase" is one of backfill_condition().
CREATE FUNCTION gte_small.backfill_count_on_shards(job gte_small.backfill_job, phase pg_catalog.text) RETURNS pg_catalog.int8
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  counted int8;
BEGIN
  EXECUTE format('SELECT count(*) FROM %s AS t WHERE %s', job.target, gte_small.backfill_condition(phase, job.embedding, job.content))
    INTO counted;
  RETURN counted;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_count_on_shards(gte_small.backfill_job, pg_catalog.text) IS
  'part of embed_backfill: how many rows of a distributed table a backfill is about';

-- A row of a reference table counts once for each copy, because each node embeds its own.
CREATE FUNCTION gte_small.backfill_shards_begin(job gte_small.backfill_job) RETURNS gte_small.backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  job.rows := 0;
  job.began := clock_timestamp();
  job.told := job.began;
  job.total := gte_small.backfill_count_on_shards(job, CASE job.phase WHEN 'missing' THEN 'missing' ELSE 'all' END)
               * (SELECT greatest(1, max(c.copies))
                    FROM (SELECT count(*) AS copies FROM pg_dist_shard h JOIN pg_dist_placement l ON l.shardid = h.shardid
                           WHERE h.logicalrelid = job.target GROUP BY h.shardid) c);
  RETURN job;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_shards_begin(gte_small.backfill_job) IS
  'part of embed_backfill: begins to count what a backfill of shards does';

-- What remains after a backfill of the shards.
CREATE FUNCTION gte_small.backfill_shards_end(job gte_small.backfill_job, failures pg_catalog.text[]) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  seconds float8 := greatest(1e-3, extract(epoch FROM clock_timestamp() - job.began));
  missing int8;
BEGIN
  RAISE NOTICE '%.%: % rows embedded in % s (% rows/s)', job.target, quote_ident(job.embedding), job.rows,
    round(seconds::numeric, 1), round((job.rows / seconds)::numeric, 1);
  PERFORM gte_small.shards_failed(job.target, failures);
  missing := gte_small.backfill_count_on_shards(job, 'missing');
  IF missing > 0 THEN
    RAISE WARNING '% rows of % have no embedding', missing, job.target
      USING DETAIL = 'Other sessions have them locked, or wrote them meanwhile.', HINT = 'Call it again.';
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_shards_end(gte_small.backfill_job, pg_catalog.text[]) IS
  'part of embed_backfill: what a backfill of shards did and what it left';

-- No SET clause: the user's triggers and policies run in it, and it commits.
CREATE PROCEDURE gte_small.backfill_shards(target pg_catalog.regclass, batch_size pg_catalog.int4, force pg_catalog.bool, embedding pg_catalog.name)
  LANGUAGE plpgsql
AS $body$
DECLARE
  jobs gte_small.backfill_job[];
  job gte_small.backfill_job;
  waiting pg_catalog.int8[];
  shards pg_catalog.int4;
  turn pg_catalog.int8[];
  failures pg_catalog.text[];
  embedded pg_catalog.int8;
  one pg_catalog.record;
  by_call pg_catalog.bool;
BEGIN
  jobs := gte_small.backfill_jobs(target, batch_size, force, embedding);
  PERFORM gte_small.require_one_model();
  FOREACH job IN ARRAY jobs LOOP
    IF force THEN
      -- Until it is done, the column's state is "re-embedding".
      job := gte_small.backfill_force_begin(job);
      COMMIT;
    END IF;
    job := gte_small.backfill_shards_begin(job);
    COMMIT;
    failures := '{}';
    by_call := force;
    LOOP
      waiting := gte_small.shards(target);
      shards := pg_catalog.cardinality(waiting);
      WHILE pg_catalog.cardinality(waiting) OPERATOR(pg_catalog.>) 0 LOOP
        job := gte_small.backfill_tell(job, pg_catalog.format(', %s of %s shards to go', pg_catalog.cardinality(waiting), shards));
        IF by_call THEN
          turn := gte_small.shards_of_a_turn(waiting);
          FOR one IN SELECT * FROM gte_small.run_on_shards(turn, CASE WHEN force THEN 'force' ELSE 'fill' END, job.embedding, batch_size) LOOP
            IF NOT one.success THEN
              failures := failures OPERATOR(pg_catalog.||) pg_catalog.format('%s: %s', one.place, one.result);
            END IF;
          END LOOP;
          waiting := gte_small.shards_left(waiting, turn);
          IF force THEN
            job.rows := job.rows OPERATOR(pg_catalog.+) gte_small.embeddings_on_shards(turn, job.embedding);
          END IF;
        ELSE
          SELECT t.shards, t.failures, t.embedded INTO waiting, failures, embedded
            FROM gte_small.backfill_turn(waiting, 'steps', batch_size, job.embedding, failures) t;
          job.rows := job.rows OPERATOR(pg_catalog.+) embedded;
        END IF;
        COMMIT;
      END LOOP;
      -- Rows that a step left out: the call says which and why.
      EXIT WHEN by_call OR pg_catalog.cardinality(failures) OPERATOR(pg_catalog.>) 0
        OR gte_small.backfill_count_on_shards(job, 'missing') OPERATOR(pg_catalog.=) 0;
      by_call := true;
    END LOOP;
    IF force AND pg_catalog.cardinality(failures) OPERATOR(pg_catalog.=) 0 THEN
      IF EXISTS (SELECT FROM gte_small.notes_of_shards(target, job.embedding) s
                  WHERE NOT s.success OR pg_catalog.jsonb_path_exists(s.result::pg_catalog.jsonb, '$[*].force')) THEN
        RAISE WARNING 'rows of % kept their former embeddings', target
          USING DETAIL = 'Other sessions have them locked.', HINT = 'Call it again.';
      ELSE
        PERFORM gte_small.backfill_note(job, NULL, '0');
      END IF;
      COMMIT;
    END IF;
    PERFORM gte_small.backfill_shards_end(job, failures);
  END LOOP;
END
$body$;
COMMENT ON PROCEDURE gte_small.backfill_shards(pg_catalog.regclass, pg_catalog.int4, pg_catalog.bool, pg_catalog.name) IS
  'part of embed_backfill: the backfill of a distributed table';

CREATE FUNCTION gte_small.backfill_shards_step(target pg_catalog.regclass, batch_size pg_catalog.int4, embedding pg_catalog.name)
  RETURNS pg_catalog.int8
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  jobs gte_small.backfill_job[];
  job gte_small.backfill_job;
  turn record;
  waiting int8[];
BEGIN
  PERFORM gte_small.require_no_changes(target);
  jobs := gte_small.backfill_jobs(target, batch_size, false, embedding);
  -- Once for all columns: it asks every node.
  PERFORM gte_small.require_one_model();
  FOREACH job IN ARRAY jobs LOOP
    waiting := gte_small.shards(target);
    turn := NULL;
    WHILE cardinality(waiting) > 0 LOOP
      SELECT * INTO turn FROM gte_small.backfill_turn(waiting, 'step', batch_size, job.embedding, '{}');
      IF turn.embedded > 0 THEN
        RETURN turn.embedded;
      END IF;
      PERFORM gte_small.shards_failed(target, turn.failures);
      waiting := turn.shards;
    END LOOP;
  END LOOP;
  RETURN 0;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_shards_step(pg_catalog.regclass, pg_catalog.int4, pg_catalog.name) IS
  'part of embed_backfill_step: one batch for each of some shards of a distributed table';
