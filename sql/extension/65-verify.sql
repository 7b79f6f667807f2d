-- Checks whether vectors are those of their texts, and suggests a threshold for searches.

-- A FROM item for a random sample. Of a small table it has all rows. Of a large one it has random blocks
-- with about three times the wanted number of rows, from which the caller chooses at random. A sample of NULL is
-- all rows.
CREATE FUNCTION gte_small.sample(target pg_catalog.regclass, sample pg_catalog.int4) RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  estimated float8;
  kind "char";
BEGIN
  SELECT c.relkind INTO kind FROM pg_class c WHERE c.oid = target;
  -- As the planner does it: the density of rows at the last ANALYZE, the blocks of today. Without an
  -- ANALYZE three a block, which is few beside vectors of 1.5 kB, and so errs towards too many.
  SELECT sum(CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN c.reltuples / c.relpages ELSE 3 END
             * (pg_relation_size(c.oid, 'main') / current_setting('block_size')::int8))
    INTO estimated FROM pg_class c WHERE c.oid = ANY (gte_small.backfill_leaves(target));
  RETURN format('%s %s AS t%s', CASE WHEN kind = 'p' THEN '' ELSE 'ONLY' END, target,
                CASE WHEN estimated > 3.0 * sample THEN format(' TABLESAMPLE SYSTEM (%s)', 300.0 * sample / estimated) END);
END
$body$;
COMMENT ON FUNCTION gte_small.sample(pg_catalog.regclass, pg_catalog.int4) IS
  'part of embed_verify: FROM item for a random sample of a table';

-- Compares the vectors of a sample with the embeddings of their texts. With "since", only rows that are not older
-- than that transaction.
--
-- A vector is right if its cosine to the embedding of its text is at least 0.999 and it has unit length. For one
-- text, f32 and bf16 and all CPUs differ by less than 0.0001; the vector of another model differs much more. A
-- search can't distinguish two texts whose vectors have a higher cosine than that.
CREATE FUNCTION gte_small.compare(
    target pg_catalog.regclass, embedding pg_catalog.name, content pg_catalog.name[], sample pg_catalog.int4,
    since pg_catalog.xid,
    OUT checked pg_catalog.int8, OUT wrong pg_catalog.int8, OUT missing pg_catalog.int8, OUT not_unit pg_catalog.int8,
    OUT whole pg_catalog.bool, OUT examples pg_catalog.text[], OUT unknown pg_catalog.int4)
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  vec text := gte_small.vector_schema();
  sampled text := gte_small.sample(target, sample);
  -- A vector of a long text is right if it is that of its beginning, also where new ones are refused.
  on_truncate text := current_setting('gte_small.on_truncate', true);
BEGIN
  PERFORM set_config('gte_small.on_truncate', 'silent', true);
  EXECUTE format($sql$
    WITH sampled AS MATERIALIZED (
      SELECT row_number() OVER () AS n, s.*
        FROM (SELECT t.ctid AS place, t.tableoid AS leaf, %1$s AS text, t.%2$I AS stored
                FROM %3$s WHERE (%4$s) AND %6$s %7$s LIMIT $1) s),
    batches AS (
      SELECT array_agg(n ORDER BY n) AS n, array_agg(text ORDER BY n) AS texts FROM sampled GROUP BY (n - 1) / 64),
    fresh AS (
      SELECT unnest(b.n) AS n, unnest(gte_small.embed(b.texts)) AS v FROM batches b),
    compared AS (
      SELECT s.*, u.unknown, u.tokens,
             CASE WHEN s.text IS NULL THEN 'wrong' WHEN s.stored IS NULL THEN 'missing'
                       WHEN %5$s.vector_dims(s.stored) <> %5$s.vector_dims(f.v) THEN 'wrong'
                       WHEN NOT gte_small.is_unit(s.stored) THEN 'not unit'
                       WHEN %5$s.cosine_distance(s.stored, f.v) <= 0.001 THEN 'right' ELSE 'wrong' END AS verdict
        FROM sampled s JOIN fresh f USING (n)
        LEFT JOIN LATERAL gte_small.unknown_tokens(CASE WHEN s.n <= 1000 THEN left(s.text, 4096) END) u ON true)
    SELECT count(*), count(*) FILTER (WHERE verdict IN ('wrong', 'not unit')), count(*) FILTER (WHERE verdict = 'missing'),
           count(*) FILTER (WHERE verdict = 'not unit'),
           (array_agg(leaf::regclass || ' ' || place ORDER BY leaf, place) FILTER (WHERE verdict IN ('wrong', 'not unit')))[:5],
           gte_small.unknown_percent(sum(unknown)::int8, sum(tokens)::int8)
      FROM compared $sql$,
    gte_small.backfill_text(content), embedding, sampled,
    gte_small.backfill_condition('all', embedding, content), vec,
    CASE WHEN since IS NULL THEN 'true' ELSE 'age(t.xmin) <= age($2)' END,
    -- All rows need no order.
    CASE WHEN sample IS NOT NULL THEN 'ORDER BY random()' END)
    INTO checked, wrong, missing, not_unit, examples, unknown USING sample, since;
  -- An unlimited query has seen all rows; so has one of a table that is read whole and has fewer than the limit.
  whole := sample IS NULL OR checked < sample AND sampled LIKE '% AS t';
  PERFORM set_config('gte_small.on_truncate', on_truncate, true);
END
$body$;
COMMENT ON FUNCTION gte_small.compare(pg_catalog.regclass, pg_catalog.name, pg_catalog.name[], pg_catalog.int4, pg_catalog.xid) IS
  'part of embed_verify: compares vectors with the embeddings of their texts';

-- After all vectors of a column were found right: notes that they are of the model in use. Rows that were written
-- meanwhile are compared first, while no other transaction can write a foreign vector.
CREATE FUNCTION gte_small.settle(
    target pg_catalog.regclass, embedding pg_catalog.name, content pg_catalog.name[], since pg_catalog.xid)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  obstacle text;
  remedy text := 'Call it again.';
BEGIN
  IF row_security_active(target) THEN
    obstacle := format('row-level security hides rows from %I', current_user);
    remedy := 'Call it as the table''s owner, or as a role with BYPASSRLS.';
  ELSIF EXISTS (SELECT FROM gte_small.embedding_columns(target) c
                  JOIN pg_trigger t ON t.tgrelid = target AND t.tgname = c.trigger_name
                 WHERE c.embedding = settle.embedding AND t.tgparentid <> 0) THEN
    obstacle := format('%s is a partition, and all partitions have one note', target);
    remedy := format('Call it for %s.', pg_partition_root(target));
  ELSIF NOT (has_any_column_privilege(target, 'INSERT') OR has_any_column_privilege(target, 'UPDATE')) THEN
    obstacle := format('%I may not write to it', current_user);
    remedy := format('A role with the privilege INSERT or UPDATE can do so, such as its owner %s.',
                     (SELECT c.relowner::regrole FROM pg_class c WHERE c.oid = target));
  ELSIF current_setting('transaction_read_only')::bool THEN
    obstacle := 'this transaction is read-only';
    remedy := 'Call it on the primary, in a transaction that may write.';
  ELSIF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    obstacle := format('rows that others write are not seen at the isolation level %s', current_setting('transaction_isolation'));
    remedy := 'Call it at the isolation level read committed.';
  ELSIF NOT gte_small.note_lock(target, embedding) THEN
    obstacle := 'other sessions are writing vectors of their own';
  ELSIF (SELECT c.wrong FROM gte_small.compare(target, embedding, content, NULL, since) c) > 0 THEN
    obstacle := 'a wrong vector was written meanwhile';
  ELSIF NOT gte_small.note_settle(target, embedding, true) THEN
    obstacle := 'another session is changing its note';
  END IF;
  IF obstacle IS NOT NULL THEN
    RAISE NOTICE 'column % of % stays "unknown": %', quote_ident(embedding), target, obstacle
      USING DETAIL = 'All vectors that were checked are right.', HINT = remedy;
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.settle(pg_catalog.regclass, pg_catalog.name, pg_catalog.name[], pg_catalog.xid) IS
  'part of embed_verify: notes that all vectors of a column are of the model in use';

-- A sample can't prove that no vector is foreign: only a comparison of all rows (sample => NULL, or a sample that
-- is larger than the table) settles a column of unknown vectors.
CREATE FUNCTION embed_verify(
    target pg_catalog.regclass,
    sample pg_catalog.int4 DEFAULT 1000,
    INOUT embedding pg_catalog.name DEFAULT NULL,
    OUT checked pg_catalog.int8,
    OUT wrong pg_catalog.int8,
    OUT missing pg_catalog.int8,
    OUT examples pg_catalog.text[])
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  ours record;
  found_so record;
  note jsonb;
  since xid;
BEGIN
  IF sample < 1 THEN
    RAISE EXCEPTION 'sample is %', sample
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Nothing was checked.', HINT = 'Check 1 or more rows, or NULL for all.';
  END IF;
  PERFORM gte_small.check_readable(target, 'embed_verify');
  IF row_security_active(target) THEN
    RAISE NOTICE 'row-level security applies to table %', target
      USING DETAIL = format('Only rows that %I may see are checked.', current_user);
  END IF;
  IF gte_small.is_distributed(target) THEN
    RETURN QUERY SELECT * FROM gte_small.verify_shards(target, sample, embedding);
    RETURN;
  END IF;
  FOR ours IN SELECT * FROM gte_small.backfill_columns(target, embedding) LOOP
    embedding := ours.embedding;
    since := pg_snapshot_xmin(pg_current_snapshot())::xid;
    SELECT * INTO found_so FROM gte_small.compare(target, embedding, ours.content, sample, NULL);
    checked := found_so.checked;
    wrong := found_so.wrong;
    missing := found_so.missing;
    examples := found_so.examples;
    IF found_so.not_unit > 0 THEN
      RAISE NOTICE '% of the wrong vectors of % are not of unit length', found_so.not_unit, target
        USING DETAIL = 'Searches rank them wrongly.',
              HINT = format('CALL embed_backfill(%L, force => true) embeds all rows again.', target);
    END IF;
    IF found_so.unknown IS NOT NULL THEN
      RAISE NOTICE 'the model does not know % %% of the words of %', found_so.unknown, target
        USING DETAIL = 'Texts of unknown words have the same vector, and a search can''t distinguish them.',
              HINT = 'Choose a model of the language of the texts with gte_small.model_path, and embed all rows again.';
    END IF;
    SELECT c.note INTO note FROM gte_small.embedding_columns(target) c
     WHERE c.embedding = ours.embedding ORDER BY c.trigger_name DESC LIMIT 1;
    IF note IS NULL AND gte_small.is_shard(target) THEN
      note := '{}';
    END IF;
    IF found_so.whole AND wrong = 0 AND checked > missing AND NOT note ? 'force'
       AND (note -> 'foreign' = 'true' OR note -> 'empty' = 'true' OR note ->> 'fingerprint' IS NULL
            OR gte_small.has_earlier_vectors(target, embedding, note)) THEN
      PERFORM gte_small.settle(target, embedding, ours.content, since);
    ELSIF wrong > 0 AND note ->> 'fingerprint' = (SELECT m.fingerprint FROM gte_small.embed_model() m)
       AND note -> 'foreign' IS DISTINCT FROM 'true' AND NOT current_setting('transaction_read_only')::bool
       AND (has_any_column_privilege(target, 'INSERT') OR has_any_column_privilege(target, 'UPDATE')) THEN
      -- So that the status does not call the column current any more.
      PERFORM gte_small.note_wrong(target, embedding);
    END IF;
    RETURN NEXT;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION embed_verify(pg_catalog.regclass, pg_catalog.int4, pg_catalog.name) IS
  'embeds a random sample of rows again, or with NULL all of them, and counts those whose vector is not that of their text (cosine below 0.999)';

CREATE FUNCTION suggest_threshold(target pg_catalog.regclass, embedding pg_catalog.name DEFAULT NULL)
  RETURNS pg_catalog.float8
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  columns name[];
  threshold float8;
  used int8;
  vec text := gte_small.vector_schema();
BEGIN
  PERFORM gte_small.check_readable(target, 'suggest_threshold', '{}');
  columns := ARRAY(SELECT c.embedding FROM gte_small.backfill_columns(target, embedding) c);
  IF cardinality(columns) > 1 THEN
    RAISE EXCEPTION 'table % has several embedding columns', target
      USING ERRCODE = 'ambiguous_column', DETAIL = 'A threshold is one column''s.',
            HINT = format('Name one of them: suggest_threshold(%L, %L).', target, columns[1]);
  END IF;
  PERFORM gte_small.check_readable(target, 'suggest_threshold', columns);
  -- 400 rows are 79,800 pairs: 30 ms, and the figure moves by 0.01 from call to call. A vector without a direction
  -- has no cosine.
  EXECUTE format($sql$
    WITH v AS MATERIALIZED (
      SELECT row_number() OVER () AS n, s.e
        FROM (SELECT t.%1$I AS e FROM %2$s WHERE %3$s.vector_norm(t.%1$I) > 0 ORDER BY random() LIMIT 400) s)
    SELECT (SELECT count(*) FROM v),
           (SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY p.cosine)
              FROM (SELECT 1 - %3$s.cosine_distance(a.e, b.e) AS cosine FROM v a JOIN v b ON a.n < b.n) p
             WHERE p.cosine <> 'NaN') $sql$,
    columns[1], gte_small.sample(target, 400), vec) INTO used, threshold;
  IF used < 20 THEN
    RAISE NOTICE '% has % embeddings, too few to suggest a threshold', target, used
      USING HINT = 'Begin with (embed_model()).suggested_threshold, or ask again when there are more rows.';
    RETURN NULL;
  END IF;
  RETURN round(threshold::numeric, 2);
END
$body$;
COMMENT ON FUNCTION suggest_threshold(pg_catalog.regclass, pg_catalog.name) IS
  'the cosine that 99 of 100 random pairs of a table''s rows stay below, from a sample of 400 rows';
