-- What a batch of embed_backfill() does with its rows: embeds their texts and writes the vectors.
--
-- A row may fail: the model refuses its text, or a constraint, a trigger or a policy refuses the UPDATE. A part
-- of a batch that fails is halved until the row stands alone. So all other rows are written, a vector that was
-- made is not made again, and one such row among n costs about 2 log n attempts. The job remembers the row. The
-- end of the call names it.
--
-- Each attempt is a subtransaction. gte_small.backfill_write() and gte_small.backfill_names() run the user's
-- triggers and policies, so they have no SET clause (see 50-backfill.sql).

-- Whether an error is one of the whole call and not of a row: connection lost, read-only, serialization failure and
-- deadlock, resources, lock_timeout, shutdown, files, corrupted data. EXCEPTION does not catch a cancel.
CREATE FUNCTION gte_small.backfill_ends(state pg_catalog.text) RETURNS pg_catalog.bool
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT left(state, 2) IN ('08', '25', '40', '53', '57', '58', 'F0') OR state IN ('55P03', 'XX001', 'XX002')
$body$;
COMMENT ON FUNCTION gte_small.backfill_ends(pg_catalog.text) IS
  'part of embed_backfill: whether an error ends the call, or is of one row';

-- The statements that read a batch: what reads and locks its rows, and what finds the rows that the reading
-- skipped. They are made from the names in the job, so a job carries no SQL. $6 are rows that failed before.
CREATE FUNCTION gte_small.backfill_statements(
    job gte_small.backfill_job, OUT reading pg_catalog.text, OUT leaving pg_catalog.text)
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  leaf_name text := job.leaves[job.leaf]::regclass::text;
  condition text := gte_small.backfill_condition(job.phase, job.embedding, job.content);
  place text := CASE WHEN job.at = job.upto THEN 't.ctid OPERATOR(pg_catalog.=) ANY ($3)'
                ELSE 't.ctid OPERATOR(pg_catalog.>=) $1 AND t.ctid OPERATOR(pg_catalog.<) $2' END
                || ' AND NOT (t.ctid OPERATOR(pg_catalog.=) ANY ($6))';
BEGIN
  -- In the order of the place, because a batch may end anywhere in the range. The text is joined
  -- outside the sort, which so carries pointers to long texts instead of the texts.
  reading := format(
    $sql$SELECT s.place, s.old, s.text, 64 OPERATOR(pg_catalog.+) LEAST(pg_catalog.octet_length(s.text), 2048) AS cost,
                pg_catalog.octet_length(s.text) AS bytes
           FROM (SELECT t.place, t.old, %s AS text
                   FROM (SELECT t.ctid AS place, pg_catalog.age(t.xmin) OPERATOR(pg_catalog.>) pg_catalog.age($5) AS old,
                                %s FROM ONLY %s AS t WHERE %s AND %s
                          ORDER BY t.ctid USING OPERATOR(pg_catalog.<)
                            FOR NO KEY UPDATE SKIP LOCKED) AS t OFFSET 0) AS s$sql$,
    gte_small.backfill_text(ARRAY(SELECT 'c' || n FROM generate_subscripts(job.content, 1) n)::name[]),
    (SELECT string_agg(format('t.%I AS c%s', c, n), ', ') FROM unnest(job.content) WITH ORDINALITY u (c, n)), leaf_name, place, condition);
  -- What the reading skipped, up to the last row it got.
  leaving := format(
    $sql$SELECT pg_catalog.array_agg(t.ctid) FROM ONLY %s AS t
          WHERE %s AND %s AND NOT (t.ctid OPERATOR(pg_catalog.=) ANY ($7))$sql$, leaf_name, place, condition);
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_statements(gte_small.backfill_job) IS
  'part of embed_backfill: the statements that read a batch';

-- The statement that writes vectors. It gives how many, and the transaction that they are of: a subtransaction's.
CREATE FUNCTION gte_small.backfill_writing(job gte_small.backfill_job) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  -- One nested loop over the places, whatever the size of the table.
  SELECT format(
    $sql$WITH written AS (
           UPDATE ONLY %1$s AS t SET %2$I = b.v
             FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS b (place, v)
            WHERE t.ctid OPERATOR(pg_catalog.=) b.place AND %3$s
           RETURNING t.%2$I IS NOT NULL AS embedded, t.xmin AS writer)
         SELECT pg_catalog.count(*) %4$s, (pg_catalog.array_agg(writer))[1] FROM written$sql$,
    job.leaves[job.leaf]::regclass, job.embedding,
    CASE job.phase
      WHEN 'missing' THEN 'b.v IS NOT NULL'
      WHEN 'force' THEN 'true'
      -- As in embed_verify(): a row that was written meanwhile mostly has the right vector.
      ELSE format('CASE WHEN b.v IS NULL THEN t.%1$I IS NOT NULL WHEN t.%1$I IS NULL THEN true
                   ELSE NOT (%2$s.cosine_distance(t.%1$I, b.v) OPERATOR(pg_catalog.<=) 0.001) END',
                  job.embedding, gte_small.vector_schema()) END,
    CASE WHEN job.phase = 'missing' THEN 'FILTER (WHERE embedded)' END)
$body$;
COMMENT ON FUNCTION gte_small.backfill_writing(gte_small.backfill_job) IS
  'part of embed_backfill: the statement that writes the vectors of a batch';

-- The statement that gives the primary key of the row at a place, in the form of PostgreSQL's own messages. NULL
-- if there is no primary key, or if the caller may not read it.
CREATE FUNCTION gte_small.backfill_naming(leaf pg_catalog.oid) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT format($sql$SELECT pg_catalog.format('(%%s)=(%%s)', %L, pg_catalog.concat_ws(', ', %s)) FROM ONLY %s AS t
                     WHERE t.ctid OPERATOR(pg_catalog.=) $1$sql$,
                string_agg(quote_ident(a.attname), ', ' ORDER BY k.n),
                string_agg(format('pg_catalog.left(t.%I::pg_catalog.text, 64)', a.attname), ', ' ORDER BY k.n), leaf::regclass)
    FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n)
    JOIN pg_attribute a ON a.attrelid = leaf AND a.attnum = k.attnum
   WHERE i.indrelid = leaf AND i.indisprimary AND k.n <= i.indnkeyatts
  HAVING bool_and(has_column_privilege(leaf, k.attnum, 'SELECT'))
$body$;
COMMENT ON FUNCTION gte_small.backfill_naming(pg_catalog.oid) IS
  'part of embed_backfill: the statement that names a row by its primary key';

-- The names of rows in messages: by the primary key, else by the ctid. A message names five.
CREATE FUNCTION gte_small.backfill_names(job gte_small.backfill_job, places pg_catalog.tid[]) RETURNS pg_catalog.text[]
  LANGUAGE plpgsql
AS $body$
DECLARE
  naming pg_catalog.text := gte_small.backfill_naming(job.leaves[job.leaf]);
  names pg_catalog.text[] := '{}';
  place pg_catalog.tid;
  named pg_catalog.text;
BEGIN
  FOREACH place IN ARRAY places[1:5 OPERATOR(pg_catalog.-) pg_catalog.cardinality(job.failed_rows)] LOOP
    named := NULL;
    IF naming IS NOT NULL THEN
      EXECUTE naming INTO named USING place;
    END IF;
    names := pg_catalog.array_append(names, COALESCE(named, pg_catalog.format('ctid %s', place)));
  END LOOP;
  RETURN names;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_names(gte_small.backfill_job, pg_catalog.tid[]) IS
  'part of embed_backfill: what messages call rows';

-- Remembers rows of the leaf at hand that failed, and the error of the first. The job holds 100,000 places; the next
-- pass tries those beyond again.
CREATE FUNCTION gte_small.backfill_failed(job gte_small.backfill_job, places pg_catalog.tid[], names pg_catalog.text[],
    failure pg_catalog.text[])
  RETURNS gte_small.backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  leaf CONSTANT oid := job.leaves[job.leaf];
BEGIN
  job.failed := job.failed + cardinality(places);
  job.failed_places := (job.failed_places || places)[:100000];
  job.failed_leaves := (job.failed_leaves || array_fill(leaf, ARRAY[cardinality(places)]))[:100000];
  job.failed_rows := job.failed_rows || ARRAY(SELECT concat_ws(' of ', n, CASE WHEN leaf <> job.target THEN leaf::regclass END)
                                                FROM unnest(names) WITH ORDINALITY AS u (n, place) ORDER BY u.place);
  job.failure := coalesce(job.failure, failure);
  RETURN job;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_failed(gte_small.backfill_job, pg_catalog.tid[], pg_catalog.text[], pg_catalog.text[]) IS
  'part of embed_backfill: remembers rows that can''t be embedded';

-- The rows of the leaf at hand that failed.
CREATE FUNCTION gte_small.backfill_failed_here(job gte_small.backfill_job) RETURNS pg_catalog.tid[]
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT CASE WHEN job.failed = 0 THEN '{}'
    ELSE ARRAY(SELECT f.place FROM unnest(job.failed_places, job.failed_leaves) AS f (place, leaf) WHERE f.leaf = job.leaves[job.leaf]) END
$body$;
COMMENT ON FUNCTION gte_small.backfill_failed_here(gte_small.backfill_job) IS
  'part of embed_backfill: the rows of a table that can''t be embedded';

-- With force, a row that keeps its former vector: a later call must go on there. Leaves are walked by their OIDs.
CREATE FUNCTION gte_small.backfill_hold(job gte_small.backfill_job, places pg_catalog.tid[]) RETURNS gte_small.backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  leaf CONSTANT oid := job.leaves[job.leaf];
  block CONSTANT int8 := (SELECT min(gte_small.backfill_block(p)) FROM unnest(places) p);
BEGIN
  IF job.hold_leaf IS NULL OR leaf < job.hold_leaf OR leaf = job.hold_leaf AND block < job.hold_block THEN
    job.hold_leaf := leaf;
    job.hold_block := block;
  END IF;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_hold(gte_small.backfill_job, pg_catalog.tid[]) IS
  'part of embed_backfill: where a later call has to go on';

-- Embeds a batch. The model may refuse a text: one that is too long under on_truncate = error, or that
-- has invalid bytes. Such a text gets NULL, and all others are embedded.
CREATE FUNCTION gte_small.backfill_embed(
    job gte_small.backfill_job, texts pg_catalog.text[],
    OUT vectors vector[], OUT refused pg_catalog.int4[], OUT refusal pg_catalog.text[])
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  pending int[] := ARRAY[1, cardinality(texts)];
  low int; high int; middle int;
  state text; message text; hint text;
BEGIN
  IF job.phase <> 'missing' AND (SELECT m.fingerprint FROM gte_small.embed_model() m) <> job.fingerprint THEN
    RAISE EXCEPTION 'the model was changed during the backfill'
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'Some rows have embeddings of the one and some of the other.',
            HINT = format('CALL embed_backfill(%L, force => true) again.', job.target);
  END IF;
  vectors := '{}';
  refused := '{}';
  WHILE cardinality(pending) > 0 LOOP
    low := pending[1]; high := pending[2]; pending := pending[3:];
    BEGIN
      vectors := vectors || gte_small.embed(texts[low:high]);
    EXCEPTION WHEN string_data_right_truncation OR character_not_in_repertoire OR program_limit_exceeded OR internal_error THEN
      IF high > low THEN
        middle := (low + high) / 2;
        pending := ARRAY[low, middle, middle + 1, high] || pending;
      ELSE
        vectors[low] := NULL;
        refused := refused || low;
        IF refusal IS NULL THEN
          GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
          refusal := ARRAY[state, message, hint];
        END IF;
      END IF;
    END;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_embed(gte_small.backfill_job, pg_catalog.text[]) IS
  'part of embed_backfill: embeds the texts of a batch and finds those that can''t be';

-- Writes the vectors of a batch, and finds the rows that can't be written.
CREATE FUNCTION gte_small.backfill_write(job gte_small.backfill_job, places pg_catalog.tid[], vectors vector[])
  RETURNS gte_small.backfill_job
  LANGUAGE plpgsql
AS $body$
DECLARE
  leaf pg_catalog.regclass := job.leaves[job.leaf];
  writing pg_catalog.text := gte_small.backfill_writing(job);
  pending pg_catalog.int4[] := ARRAY[1, pg_catalog.cardinality(places)];
  low pg_catalog.int4; high pg_catalog.int4; middle pg_catalog.int4;
  tried pg_catalog.bool := false;
  wrote pg_catalog.int4; writer pg_catalog.xid;
  state pg_catalog.text; message pg_catalog.text; hint pg_catalog.text;
  failed pg_catalog.tid[] := '{}'; before pg_catalog.tid[]; failure pg_catalog.text[];
BEGIN
  WHILE pg_catalog.cardinality(pending) OPERATOR(pg_catalog.>) 0 LOOP
    low := pending[1]; high := pending[2]; pending := pending[3:];
    BEGIN
      PERFORM gte_small.own_write(leaf, false);
      EXECUTE writing INTO wrote, writer USING places[low:high], vectors[low:high];
      PERFORM gte_small.own_write_end();
      IF job.alone THEN
        -- Deferred constraints and triggers, which would fail at COMMIT. They fire for a trial, because they
        -- may be right only at the end.
        BEGIN
          SET CONSTRAINTS ALL IMMEDIATE;
          RAISE EXCEPTION USING ERRCODE = 'GT000', MESSAGE = 'taken back';
        EXCEPTION WHEN SQLSTATE 'GT000' THEN
        END;
      END IF;
      job.wrote := job.wrote OPERATOR(pg_catalog.+) wrote;
      IF writer IS NOT NULL AND job.phase OPERATOR(pg_catalog.<>) 'missing' THEN
        job.own := pg_catalog.array_append(job.own, writer);
      END IF;
    EXCEPTION WHEN OTHERS OR assert_failure THEN
      GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
      IF gte_small.backfill_ends(state) THEN
        RAISE;
      END IF;
      IF NOT tried THEN
        -- A statement that no row can pass fails without rows too, and that ends the call: no right to
        -- write, no replica identity, a trigger for each statement.
        EXECUTE writing USING places[1:0], vectors[1:0];
        tried := true;
      END IF;
      IF high OPERATOR(pg_catalog.>) low THEN
        middle := (low OPERATOR(pg_catalog.+) high) OPERATOR(pg_catalog./) 2;
        pending := pg_catalog.array_cat(ARRAY[low, middle, middle OPERATOR(pg_catalog.+) 1, high], pending);
      ELSE
        failed := pg_catalog.array_append(failed, places[low]);
        failure := COALESCE(failure, ARRAY[state, message, hint]);
      END IF;
    END;
  END LOOP;
  IF pg_catalog.cardinality(failed) OPERATOR(pg_catalog.>) 0 THEN
    IF job.phase OPERATOR(pg_catalog.<>) 'missing' THEN
      job := gte_small.backfill_hold(job, failed);
    END IF;
    -- A row whose text the model refused is known by now.
    before := gte_small.backfill_failed_here(job);
    failed := ARRAY(SELECT f FROM pg_catalog.unnest(failed) AS f WHERE NOT (f OPERATOR(pg_catalog.=) ANY (before)));
    IF pg_catalog.cardinality(failed) OPERATOR(pg_catalog.>) 0 THEN
      job := gte_small.backfill_failed(job, failed, gte_small.backfill_names(job, failed), failure);
    END IF;
  END IF;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION gte_small.backfill_write(gte_small.backfill_job, pg_catalog.tid[], vector[]) IS
  'part of embed_backfill: writes the vectors of a batch and finds the rows that can''t be written';
