-- Embeddings for rows that have none: embed_backfill() and embed_backfill_step().
--
-- One batch is one transaction. It locks rows without an embedding and reads their text in the same
-- statement, embeds the texts, and updates the rows. Reading before locking could store the embedding
-- of an old text beside a new text. FOR NO KEY UPDATE does not block foreign-key checks of other
-- sessions. SKIP LOCKED never waits for a row lock, and lets several sessions work on one table.
--
-- A pass walks the blocks of each leaf partition in order. More passes follow, because a pass misses
-- rows that are locked, and rows that are written to blocks it has left. The call ends after a pass
-- that finds no row, or only rows that were written after the call began, as by sessions that go on
-- inserting under gte_small.defer.
--
-- gte_small.backfill_batch(), gte_small.backfill_write(), gte_small.backfill_names() and the calls of
-- 55-backfill-calls.sql read and write rows, so the user's triggers, policies and generated columns run in
-- them, which may need the session's search_path. Therefore these have no SET clause, and each name and
-- operator in them is qualified. All other functions have a safe search_path; they pass a job from one to
-- the next.
--
-- A table may have more partitions than a transaction can have locks. So no function locks all of them: the
-- partitions are found without locks, the locks of counting are let go for each partition, and a batch ends
-- after a few partitions without such a row.

CREATE TYPE gte_small.backfill_job AS (
  -- The task.
  target pg_catalog.regclass,
  embedding pg_catalog.name,
  content pg_catalog.name[],
  batch_size pg_catalog.int4,
  fingerprint pg_catalog.text,
  -- 'missing': rows without an embedding. 'force': all rows. 'moved': rows that were written
  -- during the pass over all rows. NULL: done.
  phase pg_catalog.text,
  -- The position: leaf partitions, number of the current one, the next row, the block where it ends.
  leaves pg_catalog.oid[],
  leaf pg_catalog.int4,
  at pg_catalog.tid,
  until pg_catalog.int8,
  -- A step starts at a random block of a leaf. That leaf comes again as the last, up to this block.
  wrap pg_catalog.int8,
  -- The blocks of the next batch begin at "at" and end before "upto"; NULL at the end of a pass. Where both
  -- are equal, the batch tries the skipped rows again.
  upto pg_catalog.tid,
  -- How much text one batch may take, in the units of a row's cost.
  budget pg_catalog.float8,
  -- The oldest transaction that was still running when the call began.
  since pg_catalog.xid,
  -- Rows that this batch wrote; rows it found that are older than the call; both for this pass; old rows
  -- without an embedding after the last pass.
  wrote pg_catalog.int4,
  found_old pg_catalog.int4,
  pass_old pg_catalog.int8,
  pass_wrote pg_catalog.int8,
  remaining pg_catalog.int8,
  -- Consecutive passes that wrote nothing, and the seconds to wait before the next.
  idle pg_catalog.int4,
  wait pg_catalog.float8,
  -- Rows that failed: how many; where, with the leaf of each; the names of the first; SQLSTATE, message and hint
  -- of the first error.
  failed pg_catalog.int8,
  failed_places pg_catalog.tid[],
  failed_leaves pg_catalog.oid[],
  failed_rows pg_catalog.text[],
  failure pg_catalog.text[],
  -- Whether all that the transaction has written is this call's: deferred triggers may then fire for a trial.
  alone pg_catalog.bool,
  -- For messages.
  rows pg_catalog.int8,
  total pg_catalog.int8,
  began pg_catalog.timestamptz,
  told pg_catalog.timestamptz,
  progress pg_catalog.text,
  -- Only with force: whether the note can keep the position; when the position was last saved; "since" for
  -- the next pass; the transactions of this call's batches; rows that other sessions had locked; attempts to
  -- get them; leaves that are done; rows given up; where a later call must resume because of them.
  noted pg_catalog.bool,
  saved pg_catalog.timestamptz,
  next_since pg_catalog.xid,
  own pg_catalog.xid[],
  skipped pg_catalog.tid[],
  tries pg_catalog.int4,
  walked pg_catalog.oid[],
  given_up pg_catalog.int8,
  hold_leaf pg_catalog.oid,
  hold_block pg_catalog.int8
);
COMMENT ON TYPE gte_small.backfill_job IS
  'part of embed_backfill: what embed_backfill() is doing';

COMMENT ON TYPE gte_small.backfill_job[] IS
  'part of embed_backfill: a job for each embedding column';

-- The block number of a ctid.
CREATE FUNCTION gte_small.backfill_block(place pg_catalog.tid) RETURNS pg_catalog.int8
  LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  AS $body$ SELECT split_part(ltrim(place::text, '('), ',', 1)::int8 $body$;
COMMENT ON FUNCTION gte_small.backfill_block(pg_catalog.tid) IS
  'part of embed_backfill: the block of a ctid';

-- A table and its partitions. pg_partition_tree() would lock each of them until the end of the transaction.
CREATE FUNCTION gte_small.backfill_tree(target pg_catalog.regclass) RETURNS SETOF pg_catalog.oid
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  WITH RECURSIVE tree (oid) AS (
    SELECT target::oid
     UNION ALL
    SELECT i.inhrelid FROM tree t JOIN pg_class p ON p.oid = t.oid AND p.relkind = 'p'
                                  JOIN pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending
  )
  SELECT t.oid FROM tree t
$body$;
COMMENT ON FUNCTION gte_small.backfill_tree(pg_catalog.regclass) IS
  'part of embed_backfill: a table and its partitions';

-- The tables that store a table's rows. Foreign tables are left out: their rows are on another server.
CREATE FUNCTION gte_small.backfill_leaves(target pg_catalog.regclass) RETURNS pg_catalog.oid[]
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT coalesce(array_agg(c.oid ORDER BY c.oid), '{}')
    FROM pg_class c
   WHERE c.relkind = 'r' AND c.oid IN (SELECT t FROM gte_small.backfill_tree(target) t)
$body$;
COMMENT ON FUNCTION gte_small.backfill_leaves(pg_catalog.regclass) IS
  'part of embed_backfill: the tables that hold the rows of a table';

-- The condition for rows t that have a text: one of the columns is not NULL and not blank. NULL or false for others.
CREATE FUNCTION gte_small.has_text(content pg_catalog.name[]) RETURNS pg_catalog.text
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT string_agg(format('NOT gte_small.is_blank(t.%I::pg_catalog.text)', c), ' OR ' ORDER BY n)
    FROM unnest(content) WITH ORDINALITY AS u (c, n)
$body$;
COMMENT ON FUNCTION gte_small.has_text(pg_catalog.name[]) IS
  'part of embed_backfill: SQL condition for the rows that have a text to embed';

-- An expression for the text of a row t, NULL for a blank one. It joins the columns as embed_trigger() does. The
-- cast removes the padding of char(n).
CREATE FUNCTION gte_small.backfill_text(content pg_catalog.name[]) RETURNS pg_catalog.text
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT format('CASE WHEN %s THEN %s END', gte_small.has_text(content),
                CASE WHEN cardinality(content) = 1 THEN format('t.%I::pg_catalog.text', content[1])
                ELSE format('pg_catalog.concat_ws(E''\n'', %s)',
                            (SELECT string_agg(format('t.%I::pg_catalog.text', c), ', ' ORDER BY n)
                               FROM unnest(content) WITH ORDINALITY AS u (c, n))) END)
$body$;
COMMENT ON FUNCTION gte_small.backfill_text(pg_catalog.name[]) IS
  'part of embed_backfill: SQL expression for the text that a row embeds';

-- The condition for the rows t of a phase. $4 are the transactions of this call's batches: their rows
-- may be in any block and are already right. $5 is the job's "since".
CREATE FUNCTION gte_small.backfill_condition(phase pg_catalog.text, embedding pg_catalog.name,
    content pg_catalog.name[])
  RETURNS pg_catalog.text
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT format(CASE phase
      WHEN 'missing' THEN 't.%1$I IS NULL AND (%2$s)'
      -- Rows that have none by now are for another call.
      WHEN 'moved' THEN 't.%1$I IS NOT NULL'
      ELSE '(t.%1$I IS NOT NULL OR %2$s)' END ||
    CASE WHEN phase IN ('force', 'moved') THEN
      ' AND NOT (t.xmin OPERATOR(pg_catalog.=) ANY ($4))' ELSE '' END ||
    CASE WHEN phase = 'moved' THEN
      ' AND pg_catalog.age(t.xmin) OPERATOR(pg_catalog.<=) pg_catalog.age($5)' ELSE '' END,
    embedding, gte_small.has_text(content))
$body$;
COMMENT ON FUNCTION gte_small.backfill_condition(pg_catalog.text, pg_catalog.name, pg_catalog.name[]) IS
  'part of embed_backfill: SQL condition for the rows that a backfill is about';

-- The number of rows that a backfill is about: estimated from at most 2,000 blocks of each leaf, or the
-- exact number of those that are older than the call. The subtransaction of a leaf is taken back, which lets
-- its locks go.
CREATE FUNCTION gte_small.backfill_count(job gte_small.backfill_job, exactly pg_catalog.bool) RETURNS pg_catalog.int8
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  leaf oid;
  share float8;
  counted int8;
  total float8 := 0;
BEGIN
  FOREACH leaf IN ARRAY ARRAY(SELECT DISTINCT l FROM unnest(job.leaves) l) LOOP
    share := CASE WHEN exactly THEN 1 ELSE
      least(1, 2000 * current_setting('block_size')::float8 / greatest(1, pg_relation_size(leaf, 'main'))) END;
    BEGIN
      EXECUTE format('SELECT count(*) FROM ONLY %s AS t%s WHERE %s%s', leaf::regclass,
                     CASE WHEN share < 1 THEN format(' TABLESAMPLE SYSTEM (%s)', 100 * share) END,
                     gte_small.backfill_condition(CASE WHEN job.phase = 'missing' THEN 'missing' ELSE 'all' END,
                                                          job.embedding, job.content),
                     CASE WHEN exactly THEN ' AND age(t.xmin) > age($1)' END)
         INTO counted USING job.since;
      RAISE EXCEPTION USING ERRCODE = 'GT000', MESSAGE = 'taken back';
    EXCEPTION WHEN SQLSTATE 'GT000' THEN
      total := total + counted / share;
    WHEN undefined_table OR syntax_error THEN
      -- The partition was dropped; a number stands for its name then.
    END;
  END LOOP;
  RETURN total::int8;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_count(gte_small.backfill_job, pg_catalog.bool) IS
  'part of embed_backfill: how many rows a backfill is about';

-- Refuses a table that has not the columns that the trigger names, before a batch under its lock.
CREATE FUNCTION gte_small.backfill_shape(target pg_catalog.regclass, embedding pg_catalog.name, content pg_catalog.name[])
  RETURNS pg_catalog.void
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  gone CONSTANT name := (gte_small.columns_gone(target, embedding || content))[1];
  odd text;
BEGIN
  IF gone IS NOT NULL THEN
    RAISE EXCEPTION 'column % of table % does not exist', quote_ident(gone), target
      USING ERRCODE = 'undefined_column',
            DETAIL = format('The trigger that fills %I names it, which follows no RENAME and no DROP COLUMN.', embedding),
            HINT = format('SELECT enable_semantic_search(%L, ...) with the columns as they are called now, or drop the trigger.', target);
  END IF;
  SELECT format_type(a.atttypid, a.atttypmod) INTO odd
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
   WHERE a.attrelid = target AND a.attname = embedding AND NOT (t.typname = 'vector' AND a.atttypmod IN (-1, 384));
  IF FOUND THEN
    RAISE EXCEPTION 'column % of table % has type %', quote_ident(embedding), target, odd
      USING ERRCODE = 'datatype_mismatch', DETAIL = 'An embedding is a vector(384), which the column can''t hold.',
            HINT = 'Give the column the type vector(384).';
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_shape(pg_catalog.regclass, pg_catalog.name, pg_catalog.name[]) IS
  'part of embed_backfill: refuses a table without the columns that a backfill needs';

-- The embedding columns of a call: the one that is named, or all columns of the table.
CREATE FUNCTION gte_small.backfill_columns(
    target pg_catalog.regclass, INOUT embedding pg_catalog.name, OUT content pg_catalog.name[])
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  named CONSTANT name := embedding;
  others text;
BEGIN
  FOR embedding, content IN
    SELECT DISTINCT ON (c.embedding) c.embedding, c.content FROM gte_small.embedding_columns(target) c
     WHERE c.embedding = named OR named IS NULL
     -- Of two triggers for a column the last has the say.
     ORDER BY c.embedding, c.trigger_name DESC
  LOOP
    PERFORM gte_small.backfill_shape(target, embedding, content);
    RETURN NEXT;
  END LOOP;
  IF NOT FOUND THEN
    others := (SELECT string_agg(DISTINCT quote_literal(c.embedding), ', ') FROM gte_small.embedding_columns(target) c);
    RAISE EXCEPTION 'table % has no embedding column%', target, coalesce(' ' || quote_ident(named), '')
      USING ERRCODE = 'undefined_column',
            DETAIL = 'An embedding column is one that a trigger with embed_trigger() fills.',
            HINT = coalesce('Its embedding columns: ' || others || '.', format('Make one: SELECT enable_semantic_search(%L).', target));
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_columns(pg_catalog.regclass, pg_catalog.name) IS
  'part of embed_backfill: the embedding columns that a call is about';

-- Checks the call before any work, and makes a job for each embedding column.
CREATE FUNCTION gte_small.backfill_jobs(target pg_catalog.regclass, batch_size pg_catalog.int4, force pg_catalog.bool,
    embedding pg_catalog.name)
  RETURNS gte_small.backfill_job[]
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  job gte_small.backfill_job;
  jobs gte_small.backfill_job[] := '{}';
  ours record;
  elsewhere text;
BEGIN
  PERFORM gte_small.backfill_check(target, batch_size, force);
  FOR ours IN SELECT * FROM gte_small.backfill_columns(target, embedding)
  LOOP
    PERFORM gte_small.backfill_rights(target, ours.embedding, ours.content);
    job.target := target;
    job.embedding := ours.embedding;
    job.content := ours.content;
    job.batch_size := batch_size;
    job.phase := CASE WHEN force THEN 'force' ELSE 'missing' END;
    job.leaves := gte_small.backfill_leaves(target);
    job.leaf := 0;
    -- 16 texts of a hundred letters or two long ones: the first batch is short also on a slow machine.
    job.budget := 4096;
    job.since := pg_snapshot_xmin(pg_current_snapshot())::xid;
    job.pass_old := 0; job.pass_wrote := 0;
    job.idle := 0; job.wait := 0;
    job.failed := 0; job.failed_places := '{}'; job.failed_leaves := '{}'; job.failed_rows := '{}';
    job.alone := pg_current_xact_id_if_assigned() IS NULL;
    job.rows := 0;
    job.own := '{}'; job.skipped := '{}'; job.walked := '{}';
    job.tries := 0; job.given_up := 0;
    jobs := jobs || job;
  END LOOP;

  -- Loads the model, or says why there is none.
  job.fingerprint := (SELECT m.fingerprint FROM gte_small.embed_model() m);
  FOR i IN 1 .. cardinality(jobs) LOOP
    jobs[i].fingerprint := job.fingerprint;
  END LOOP;

  SELECT string_agg(c.oid::regclass::text, ', ') INTO elsewhere FROM pg_class c
   WHERE c.relkind = 'f' AND c.oid IN (SELECT t FROM gte_small.backfill_tree(target) t);
  IF elsewhere IS NOT NULL THEN
    RAISE NOTICE 'foreign tables are left out: %', elsewhere
      USING HINT = 'Embed their rows on the server that holds them.';
  END IF;
  RETURN jobs;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_jobs(pg_catalog.regclass, pg_catalog.int4, pg_catalog.bool, pg_catalog.name) IS
  'part of embed_backfill: checks what a backfill needs and plans it';

-- The next blocks of the pass. Locks the leaf, so that it can't be
-- dropped before the end of the transaction.
CREATE FUNCTION gte_small.backfill_range(job gte_small.backfill_job) RETURNS gte_small.backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  -- 2 MB: the rest of a range is read again by each batch that ends in it.
  blocks CONSTANT int8 := 256;
  leaf oid;
  leaf_name text;
  there bool;
BEGIN
  job.upto := NULL;
  LOOP
    IF job.until IS NULL THEN
      EXIT WHEN job.leaf >= cardinality(job.leaves);
      job.leaf := job.leaf + 1;
    END IF;
    leaf := job.leaves[job.leaf];
    -- Empty leaves are left without a lock.
    IF job.until IS NULL AND pg_relation_size(leaf, 'main') = 0 THEN
      job.walked := job.walked || leaf;
      job.at := NULL;
      CONTINUE;
    END IF;

    -- The name is looked up again by the statement, which may wait for a DROP, DETACH or RENAME to end.
    FOR n IN 1 .. 100 LOOP
      SELECT c.oid::regclass INTO leaf_name FROM pg_class c WHERE c.oid = leaf;
      there := FOUND;
      EXIT WHEN NOT there;
      BEGIN
        EXECUTE format('SELECT FROM ONLY %s WHERE false FOR NO KEY UPDATE', leaf_name);
        there := to_regclass(leaf_name) IS NOT DISTINCT FROM leaf::regclass;
      EXCEPTION WHEN undefined_table OR invalid_schema_name THEN
        there := false;
      END;
      -- Otherwise it was dropped, or has another name by now.
      EXIT WHEN there;
    END LOOP;
    IF NOT there
       OR leaf <> job.target AND NOT EXISTS (SELECT FROM pg_partition_ancestors(leaf) a WHERE a.relid = job.target) THEN
      job.at := NULL;
      job.until := NULL;
      job.skipped := '{}';
      CONTINUE;
    END IF;

    PERFORM gte_small.backfill_shape(leaf, job.embedding, job.content);
    IF job.until IS NULL THEN
      job.until := pg_relation_size(leaf, 'main') / current_setting('block_size')::int8;
      job.at := coalesce(job.at, '(0,0)');
      IF job.wrap IS NOT NULL AND job.leaf = cardinality(job.leaves) THEN
        job.until := job.wrap;
      END IF;
    END IF;
    IF gte_small.backfill_block(job.at) < job.until THEN
      job.upto := format('(%s,0)', least(gte_small.backfill_block(job.at) + blocks, job.until))::tid;
      EXIT;
    ELSIF cardinality(job.skipped) > 0 THEN
      job.upto := job.at;
      EXIT;
    END IF;
    job.walked := job.walked || leaf;
    job.at := NULL;
    job.until := NULL;
  END LOOP;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_range(gte_small.backfill_job) IS
  'part of embed_backfill: the next blocks of a backfill';

-- One batch, in the caller's transaction.
CREATE FUNCTION gte_small.backfill_batch(job gte_small.backfill_job) RETURNS gte_small.backfill_job
  LANGUAGE plpgsql
AS $body$
DECLARE
  began pg_catalog.timestamptz := pg_catalog.clock_timestamp();
  statements record;
  reading pg_catalog.refcursor;
  one record;
  embedded record;
  places pg_catalog.tid[] := '{}';
  texts pg_catalog.text[] := '{}';
  cost pg_catalog.float8 := 0;
  bytes pg_catalog.int8 := 0;
  full_batch pg_catalog.bool := false;
  skipped pg_catalog.tid[];
  failed pg_catalog.tid[];
  first_leaf pg_catalog.int4 := job.leaf;
BEGIN
  job.found_old := 0;
  job.wrote := 0;
  LOOP
    job := gte_small.backfill_range(job);
    EXIT WHEN job.upto IS NULL;
    SELECT * INTO statements FROM gte_small.backfill_statements(job);
    failed := gte_small.backfill_failed_here(job);
    -- A cursor, because each row it gives is locked and a batch ends by the length of its texts.
    OPEN reading NO SCROLL FOR EXECUTE statements.reading USING job.at, job.upto, job.skipped, job.own, job.since, failed;
    LOOP
      FETCH reading INTO one;
      EXIT WHEN NOT FOUND;
      places := pg_catalog.array_append(places, one.place);
      texts := pg_catalog.array_append(texts, one.text);
      job.found_old := job.found_old OPERATOR(pg_catalog.+) one.old::pg_catalog.int4;
      cost := cost OPERATOR(pg_catalog.+) COALESCE(one.cost, 64);
      bytes := bytes OPERATOR(pg_catalog.+) COALESCE(one.bytes, 0);
      -- The model reads 2 kB of a text at most: the limit of 4 MB bounds the memory.
      full_batch := pg_catalog.cardinality(places) OPERATOR(pg_catalog.>=) job.batch_size
        OR cost OPERATOR(pg_catalog.>=) job.budget OR bytes OPERATOR(pg_catalog.>=) 4194304;
      EXIT WHEN full_batch;
    END LOOP;
    CLOSE reading;
    IF job.phase OPERATOR(pg_catalog.<>) 'missing' THEN
      EXECUTE statements.leaving INTO skipped
        USING job.at, CASE WHEN full_batch THEN one.place ELSE job.upto END, job.skipped, job.own, job.since, failed, places;
    END IF;
    job := gte_small.backfill_position(job, CASE WHEN full_batch THEN one.place END, skipped,
                                               pg_catalog.cardinality(places));
    -- Blocks without such a row cost little: several in one transaction, for at most a second. Each leaf costs
    -- a lock, and one more for each of its indexes.
    EXIT WHEN pg_catalog.cardinality(places) OPERATOR(pg_catalog.>) 0
      OR job.leaf OPERATOR(pg_catalog.-) first_leaf OPERATOR(pg_catalog.>=) 8
      OR pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) began OPERATOR(pg_catalog.>) '1 second'::pg_catalog.interval
      OR job.wait OPERATOR(pg_catalog.>) 0;
  END LOOP;
  IF pg_catalog.cardinality(places) OPERATOR(pg_catalog.>) 0 THEN
    began := pg_catalog.clock_timestamp();
    SELECT * INTO embedded FROM gte_small.backfill_embed(job, texts);
    IF embedded.refusal IS NOT NULL THEN
      failed := ARRAY(SELECT places[n] FROM pg_catalog.unnest(embedded.refused) AS n);
      job := gte_small.backfill_failed(job, failed, gte_small.backfill_names(job, failed), embedded.refusal);
    END IF;
    job := gte_small.backfill_write(job, places, embedded.vectors);
    IF job.phase OPERATOR(pg_catalog.=) 'missing' AND job.wrote OPERATOR(pg_catalog.>) 0 THEN
      PERFORM gte_small.embedding_written(job.target, job.embedding);
    END IF;
  END IF;
  RETURN gte_small.backfill_account(job, cost, began);
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_batch(gte_small.backfill_job) IS
  'part of embed_backfill: one batch of a backfill';

-- Where the next batch begins: after the last row of a full batch, otherwise after the range.
CREATE FUNCTION gte_small.backfill_position(job gte_small.backfill_job, last pg_catalog.tid, skipped pg_catalog.tid[],
    got pg_catalog.int4)
  RETURNS gte_small.backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  retried bool := job.at = job.upto;
BEGIN
  job.wait := 0;
  IF retried THEN
    job.skipped := coalesce(skipped, '{}');
    -- Whoever has locked the rest gets five seconds.
    job.tries := CASE WHEN got > 0 THEN 0 ELSE job.tries + 1 END;
    IF cardinality(job.skipped) = 0 THEN
      job.tries := 0;
    ELSIF job.tries > 9 THEN
      job.given_up := job.given_up + cardinality(job.skipped);
      IF job.phase = 'force' THEN
        job := gte_small.backfill_hold(job, job.skipped);
      END IF;
      job.skipped := '{}';
      job.tries := 0;
    ELSIF got = 0 THEN
      job.wait := least(1, 0.05 * 2 ^ job.tries);
    END IF;
  ELSE
    job.skipped := job.skipped || skipped;
    -- A row that changed while it was waited for may stand elsewhere by now.
    job.at := CASE WHEN last IS NULL OR last < job.at OR last >= job.upto THEN job.upto
      ELSE format('(%s,%s)', gte_small.backfill_block(last),
                  rtrim(split_part(last::text, ',', 2), ')')::int + 1)::tid END;
  END IF;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_position(gte_small.backfill_job, pg_catalog.tid, pg_catalog.tid[], pg_catalog.int4) IS
  'part of embed_backfill: where a backfill goes on';

-- After a batch: sets the size of the next one, and at the end of a pass decides on another pass.
CREATE FUNCTION gte_small.backfill_account(job gte_small.backfill_job, cost pg_catalog.float8, began pg_catalog.timestamptz)
  RETURNS gte_small.backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  -- Writers of its rows wait for a batch, and at most two seconds when it is twice as slow as the last.
  goal CONSTANT float8 := 0.75;
  seconds float8 := greatest(1e-4, extract(epoch FROM clock_timestamp() - began));
  remaining int8;
BEGIN
  job.pass_old := job.pass_old + job.found_old;
  job.pass_wrote := job.pass_wrote + job.wrote;
  job.rows := job.rows + job.wrote;
  IF cost >= job.budget / 2 OR seconds > goal THEN
    job.budget := greatest(64, least(job.budget * 2, cost / seconds * goal));
  END IF;
  IF job.wrote > 0 AND job.phase <> 'missing' THEN
    -- The rows are of subtransactions. The number of the whole one closes the gap between those of two batches.
    job.own := job.own || pg_current_xact_id()::xid;
  END IF;
  IF job.upto IS NULL THEN
    IF job.phase = 'missing' THEN
      job.wait := 0;
      IF job.pass_wrote = 0 OR job.pass_old <= job.failed THEN
        remaining := gte_small.backfill_count(job, true);
        -- While others get on with it, waiting is not idle.
        job.idle := CASE WHEN remaining < job.remaining THEN 1 ELSE job.idle + 1 END;
        job.remaining := remaining;
        IF remaining <= job.failed OR job.idle > 9 THEN
          job.phase := NULL;
        ELSE
          job.wait := least(1, 0.05 * 2 ^ job.idle);
        END IF;
      ELSE
        job.idle := 0;
      END IF;
      IF job.phase IS NOT NULL THEN
        job.leaves := gte_small.backfill_leaves(job.target);
        job.failed := cardinality(job.failed_places);
      END IF;
    ELSE
      job := gte_small.backfill_force_pass(job);
    END IF;
    job.leaf := 0;
    job.at := NULL;
    job.until := NULL;
    job.pass_old := 0;
    job.pass_wrote := 0;
  END IF;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_account(gte_small.backfill_job, pg_catalog.float8, pg_catalog.timestamptz) IS
  'part of embed_backfill: what a backfill does after a batch';
