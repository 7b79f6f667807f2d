-- Checks whether vectors are those of their texts, and suggests a threshold for searches.

-- A FROM item for a random sample. Of a small table it has all rows. Of a large one it has random blocks
-- with about three times the wanted number of rows, from which the caller chooses at random.
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

-- A vector is right if its cosine to the embedding of its text is at least 0.999. For one text, f32 and
-- bf16 and all CPUs differ by less than 0.0001; the vector of another model differs much more. A search
-- can't distinguish two texts whose vectors have a higher cosine than that.
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
  vec text := gte_small.vector_schema();
  -- A vector of a long text is right if it is that of its beginning, also where new ones are refused.
  on_truncate text := current_setting('gte_small.on_truncate', true);
BEGIN
  IF sample IS NULL OR sample < 1 THEN
    RAISE EXCEPTION 'sample is %', coalesce(sample::text, 'NULL')
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Nothing was checked.', HINT = 'Check 1 or more rows.';
  END IF;
  IF row_security_active(target) THEN
    RAISE NOTICE 'row-level security applies to table %', target
      USING DETAIL = format('Only rows that %I may see are checked.', current_user);
  END IF;
  FOR ours IN SELECT * FROM gte_small.backfill_columns(target, embedding) LOOP
    embedding := ours.embedding;
    PERFORM set_config('gte_small.on_truncate', 'silent', true);
    EXECUTE format($sql$
      WITH sampled AS MATERIALIZED (
        SELECT row_number() OVER () AS n, s.*
          FROM (SELECT t.ctid AS place, t.tableoid AS leaf, %1$s AS text, t.%2$I AS stored
                  FROM %3$s WHERE %4$s ORDER BY random() LIMIT $1) s),
      batches AS (
        SELECT array_agg(n ORDER BY n) AS n, array_agg(text ORDER BY n) AS texts FROM sampled GROUP BY (n - 1) / 64),
      fresh AS (
        SELECT unnest(b.n) AS n, unnest(gte_small.embed(b.texts)) AS v FROM batches b),
      compared AS (
        SELECT s.*, CASE WHEN s.text IS NULL THEN 'wrong' WHEN s.stored IS NULL THEN 'missing'
                         WHEN %5$s.vector_dims(s.stored) <> %5$s.vector_dims(f.v) THEN 'wrong'
                         WHEN %5$s.cosine_distance(s.stored, f.v) <= 0.001 THEN 'right' ELSE 'wrong' END AS verdict
          FROM sampled s JOIN fresh f USING (n))
      SELECT count(*), count(*) FILTER (WHERE verdict = 'wrong'), count(*) FILTER (WHERE verdict = 'missing'),
             (array_agg(leaf::regclass || ' ' || place ORDER BY leaf, place) FILTER (WHERE verdict = 'wrong'))[:5]
        FROM compared $sql$,
      gte_small.backfill_text(ours.content), embedding, gte_small.sample(target, sample),
      gte_small.backfill_condition('all', embedding, ours.content), vec)
      INTO checked, wrong, missing, examples USING sample;
    PERFORM set_config('gte_small.on_truncate', on_truncate, true);
    RETURN NEXT;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION embed_verify(pg_catalog.regclass, pg_catalog.int4, pg_catalog.name) IS
  'embeds a random sample of rows again and counts those whose vector is not that of their text (cosine below 0.999)';

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
  columns := ARRAY(SELECT c.embedding FROM gte_small.backfill_columns(target, embedding) c);
  IF cardinality(columns) > 1 THEN
    RAISE EXCEPTION 'table % has several embedding columns', target
      USING ERRCODE = 'ambiguous_column', DETAIL = 'A threshold is one column''s.',
            HINT = format('Name one of them: suggest_threshold(%L, %L).', target, columns[1]);
  END IF;
  -- 400 rows are 79,800 pairs: 30 ms, and the figure moves by 0.01 from call to call.
  EXECUTE format($sql$
    WITH v AS MATERIALIZED (
      SELECT row_number() OVER () AS n, s.e
        FROM (SELECT t.%1$I AS e FROM %2$s WHERE t.%1$I IS NOT NULL ORDER BY random() LIMIT 400) s)
    SELECT (SELECT count(*) FROM v),
           (SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY 1 - %3$s.cosine_distance(a.e, b.e))
              FROM v a JOIN v b ON a.n < b.n) $sql$,
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
