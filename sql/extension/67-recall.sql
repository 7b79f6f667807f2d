-- How many of the nearest rows a search by the index finds.

-- The statements of embedding_recall: $1 is a vector as text, $2 and $3 its row, $4 the number of
-- neighbours, and for the search $5 the distance of the last exact one. "exact" has the distances in
-- ascending order. It calls the function of the operator: no index can serve that order.
CREATE FUNCTION gte_small.recall_statements(
    target pg_catalog.regclass, embedding pg_catalog.name, sample pg_catalog.int4,
    OUT sampled pg_catalog.text, OUT exact pg_catalog.text, OUT searched pg_catalog.text, OUT has_index pg_catalog.bool)
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  rows_of text := (SELECT CASE c.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END FROM pg_class c WHERE c.oid = target) || target || ' AS t';
  distance text := format('gte_small.exact_distance(t.%I, gte_small.vector_of($1))', embedding);
  near text := format('gte_small.%s(t.%I, gte_small.vector_of($1))', CASE WHEN gte_small.searches_halfvec(target, embedding) THEN 'half_distance' ELSE 'distance' END,
                      embedding);
BEGIN
  has_index := EXISTS (SELECT FROM gte_small.vector_indexes(target, embedding));
  sampled := format($sql$
    SELECT pg_catalog.array_agg(s.query), pg_catalog.array_agg(s.place), pg_catalog.array_agg(s.leaf)
      FROM (SELECT t.%1$I AS query, t.ctid AS place, t.tableoid AS leaf
              FROM %2$s WHERE t.%1$I IS NOT NULL ORDER BY pg_catalog.random() LIMIT %3$s) s $sql$,
    embedding, gte_small.sample(target, sample), sample);
  exact := format($sql$
    SELECT pg_catalog.array_agg(s.d ORDER BY s.d)
      FROM (SELECT %1$s AS d FROM %2$s
             WHERE t.%3$I IS NOT NULL AND NOT (t.ctid operator(pg_catalog.=) $2 AND t.tableoid operator(pg_catalog.=) $3)
             ORDER BY %1$s LIMIT $4) s $sql$,
    distance, rows_of, embedding);
  -- One more than wanted, because the row of the query is among them.
  searched := format($sql$
    SELECT pg_catalog.count(*)
      FROM (SELECT t.ctid AS place, t.tableoid AS leaf, %1$s AS d FROM %2$s
             ORDER BY %3$s LIMIT $4 operator(pg_catalog.+) 1::pg_catalog.int8) s
     WHERE s.d operator(pg_catalog.<=) $5 AND NOT (s.place operator(pg_catalog.=) $2 AND s.leaf operator(pg_catalog.=) $3) $sql$,
    distance, rows_of, near);
END
$body$;
COMMENT ON FUNCTION gte_small.recall_statements(pg_catalog.regclass, pg_catalog.name, pg_catalog.int4) IS
  'part of embedding_recall: the statements of the exact search and of the search by the index';

-- The vectors of sampled rows are the queries; the row itself does not count. A row that is as near as the last
-- of the k nearest counts as found. Without SET, because policies of the table run with the search_path
-- of the caller, and because the settings of the search are those of the session.
CREATE FUNCTION embedding_recall(
    target pg_catalog.regclass,
    INOUT k pg_catalog.int4 DEFAULT 10,
    sample pg_catalog.int4 DEFAULT 100,
    INOUT embedding pg_catalog.name DEFAULT NULL,
    OUT queries pg_catalog.int4,
    OUT recall pg_catalog.float8,
    OUT index_used pg_catalog.bool)
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql VOLATILE
AS $body$
DECLARE
  one pg_catalog.record;
  statements pg_catalog.record;
  vectors pg_catalog.text[];
  places pg_catalog.tid[];
  leaves pg_catalog.oid[];
  distances pg_catalog.float8[];
  plan pg_catalog.json;
  hits pg_catalog.int8;
  found_rows pg_catalog.int8;
  nearest_rows pg_catalog.int8;
BEGIN
  IF k IS NULL OR k operator(pg_catalog.<) 1 THEN
    RAISE EXCEPTION 'k is %', coalesce(k::pg_catalog.text, 'NULL')
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Nothing was searched.', HINT = 'Compare 1 or more neighbours, 10 for example.';
  END IF;
  IF sample IS NULL OR sample operator(pg_catalog.<) 1 THEN
    RAISE EXCEPTION 'sample is %', coalesce(sample::pg_catalog.text, 'NULL')
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Nothing was searched.', HINT = 'Search with 1 or more rows.';
  END IF;
  PERFORM gte_small.check_readable(target, 'embedding_recall');
  IF pg_catalog.row_security_active(target) THEN
    RAISE NOTICE 'row-level security applies to table %', target
      USING DETAIL = pg_catalog.format('Only rows that %I may see are searched.', current_user);
  END IF;
  FOR one IN SELECT c.embedding FROM gte_small.backfill_columns(target, embedding) c LOOP
    embedding := one.embedding;
    SELECT * INTO statements FROM gte_small.recall_statements(target, embedding, sample);
    EXECUTE statements.sampled INTO vectors, places, leaves;
    queries := coalesce(pg_catalog.cardinality(vectors), 0);
    recall := NULL;
    index_used := NULL;
    IF queries operator(pg_catalog.>) 0 THEN
      EXECUTE pg_catalog.concat('EXPLAIN (FORMAT JSON, COSTS OFF)', statements.searched)
        INTO plan USING vectors[1], places[1], leaves[1], k::pg_catalog.int8, 0::pg_catalog.float8;
      -- Only a scan by distance has such an entry.
      index_used := pg_catalog.jsonb_path_exists(plan::pg_catalog.jsonb, '$.**."Order By"');
      IF index_used THEN
        found_rows := 0;
        nearest_rows := 0;
        FOR i IN 1 .. queries LOOP
          EXECUTE statements.exact INTO distances USING vectors[i], places[i], leaves[i], k::pg_catalog.int8;
          CONTINUE WHEN distances IS NULL;
          EXECUTE statements.searched INTO hits
            USING vectors[i], places[i], leaves[i], k::pg_catalog.int8, distances[pg_catalog.cardinality(distances)];
          found_rows := found_rows operator(pg_catalog.+) least(hits, pg_catalog.cardinality(distances)::pg_catalog.int8);
          nearest_rows := nearest_rows operator(pg_catalog.+) pg_catalog.cardinality(distances)::pg_catalog.int8;
        END LOOP;
        IF nearest_rows operator(pg_catalog.>) 0::pg_catalog.int8 THEN
          recall := found_rows::pg_catalog.float8 operator(pg_catalog./) nearest_rows::pg_catalog.float8;
        END IF;
      ELSE
        recall := 1;
        RAISE NOTICE 'searches in column % of table % use no index', pg_catalog.quote_ident(embedding), target
          USING DETAIL = 'They read the whole table and find all rows.',
                HINT = CASE WHEN statements.has_index
                            THEN 'The planner expects this to be faster. SET enable_seqscan = off to measure the index.'
                            ELSE 'enable_semantic_search() makes an index, which is faster for many rows.' END;
      END IF;
    END IF;
    RETURN NEXT;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION embedding_recall(pg_catalog.regclass, pg_catalog.int4, pg_catalog.int4, pg_catalog.name) IS
  'the share of the k nearest rows that a search by the index finds, measured with the vectors of sampled rows as queries';
