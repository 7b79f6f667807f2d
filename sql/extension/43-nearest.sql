-- The nearest rows of a table, by a count that is kept. The generated functions with match_count call this.
--
-- An HNSW index chooses which near rows come, never how many. A scan of it ends early where many of its rows
-- are dead, hidden by a policy or excluded by a filter. So the search has two statements. The first one may
-- use the index. Where it comes back short, the second one reads the table. It is left out where it can find
-- nothing more: if the first statement took no such index, or met a row beyond the threshold.

-- A threshold as a bound for the distance, which is the negative cosine.
CREATE FUNCTION gte_small.bound(match_threshold pg_catalog.float8) RETURNS pg_catalog.float8
  LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  -- NaN is greater than any number.
  IF match_threshold > 1 OR match_threshold < -1 THEN
    RAISE EXCEPTION 'match_threshold is %', match_threshold
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'A threshold is a cosine, from -1 to 1; nothing was searched.',
            HINT = format('For a number of rows, without a threshold, write match_threshold => NULL, match_count => %s.',
                          CASE WHEN match_threshold >= 1 AND match_threshold < 1000000 THEN ceil(match_threshold)::text ELSE '10' END);
  END IF;
  RETURN coalesce(-match_threshold, 'infinity');
END
$body$;
COMMENT ON FUNCTION gte_small.bound(pg_catalog.float8) IS
  'part of the search functions: the bound of the distance for a threshold; refuses what is no cosine';

CREATE FUNCTION gte_small.count_of(match_count pg_catalog.int4) RETURNS pg_catalog.int4
  LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  IF match_count < 0 THEN
    RAISE EXCEPTION 'match_count is %', match_count
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'A number of rows is not negative; nothing was searched.',
            HINT = 'Leave match_count out for 10 rows.';
  END IF;
  RETURN coalesce(match_count, 10);
END
$body$;
COMMENT ON FUNCTION gte_small.count_of(pg_catalog.int4) IS
  'part of the search functions: the number of rows to return, 10 for NULL; refuses a negative one';

-- The columns by which rows at the same distance are ordered: the primary key, so that pages of a result do
-- not overlap. Without one the place of the row, which is the same until the row is written again.
CREATE FUNCTION gte_small.key_columns(target pg_catalog.regclass) RETURNS pg_catalog.name[]
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT coalesce((
    SELECT array_agg(a.attname ORDER BY k.n)
      FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (attnum, n)
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
     WHERE i.indrelid = target AND i.indisprimary AND k.n <= i.indnkeyatts), '{tableoid,ctid}')
$body$;
COMMENT ON FUNCTION gte_small.key_columns(pg_catalog.regclass) IS
  'part of the search functions: the columns that order rows at the same distance';

-- Whether the planner orders by an index and then by the key (an incremental sort). Before 17 a second sort
-- key kept it from using the index.
CREATE FUNCTION gte_small.sorts_by_index_and_key() RETURNS pg_catalog.bool
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  AS $body$ BEGIN RETURN current_setting('server_version_num')::int >= 170000; END $body$;
COMMENT ON FUNCTION gte_small.sorts_by_index_and_key() IS
  'part of the search functions: whether an index serves an order by distance and key';

-- The places of the nearest rows, in any order; "complete" says that there are no others. There can be more
-- places than "most". With "half" there is an index of halfvec: it chooses the rows, the exact distances order
-- them. With "everything" the exact statement returns rows without an embedding as well, as the last.
--
-- EXECUTE plans for the values at hand, so that a selective filter or policy takes its own index. No search_path
-- is set: the policies of the table run in it. The SET clause begins the level on which scan_settings() is
-- undone. Key and "half" are arguments, because looking them up took 0.2 ms of each call.
CREATE FUNCTION gte_small.nearest_places(
    target pg_catalog.regclass, embedding pg_catalog.name, key pg_catalog.name[], half pg_catalog.bool, wanted vector,
    most pg_catalog.int4, bound pg_catalog.float8, filter pg_catalog.jsonb, everything pg_catalog.bool,
    OUT parts pg_catalog.oid[], OUT places pg_catalog.tid[], OUT distances pg_catalog.float8[], OUT complete pg_catalog.bool)
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET plan_cache_mode = force_custom_plan
AS $body$
DECLARE
  -- $1 is the vector, $2 the number of rows, $3 the bound.
  summary CONSTANT pg_catalog.text :=
    'select pg_catalog.array_agg(s.part), pg_catalog.array_agg(s.place), pg_catalog.array_agg(s.d), '
           'pg_catalog.count(*)::pg_catalog.int4, '
           '(pg_catalog.count(*) filter (where s.d operator(pg_catalog.<) $3))::pg_catalog.int4 from (%s) s';
  statement CONSTANT pg_catalog.text :=
    'select e.tableoid as part, e.ctid as place, gte_small.%6$s(e.%1$I, $1) as d%9$s from %2$s%3$s e where %4$s%5$s '
     'order by gte_small.%7$s(e.%1$I, $1)%8$s limit $2';
  scans CONSTANT pg_catalog.int8 := gte_small.index_scans();
  by_key CONSTANT pg_catalog.bool := gte_small.sorts_by_index_and_key();
  -- Where the index can't order by the key, or is of half precision, a few rows more, which the index has at hand:
  -- they tell whether rows about as near as the last one were left out.
  reach CONSTANT pg_catalog.int4 := CASE WHEN by_key AND NOT half THEN most
    ELSE LEAST((most::pg_catalog.int8 OPERATOR(pg_catalog.+) (most OPERATOR(pg_catalog./) 8)) OPERATOR(pg_catalog.+) 3, 2147483647) END;
  only_own CONSTANT pg_catalog.text :=
    CASE WHEN (SELECT c.relkind FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) target) OPERATOR(pg_catalog.=) 'r'
         THEN 'only ' ELSE '' END;
  filled CONSTANT pg_catalog.text := pg_catalog.format('e.%I is not null', embedding);
  conditions CONSTANT pg_catalog.text := gte_small.conditions(target, filter);
  second CONSTANT pg_catalog.text := gte_small.second_condition(target, embedding);
  measure CONSTANT pg_catalog.text := CASE WHEN half THEN 'exact_distance' ELSE 'distance' END;
  and_key pg_catalog.text := '';
  key_as pg_catalog.text := '';
  by_key_as pg_catalog.text := 'u.d';
  inner_statement pg_catalog.text;
  seen pg_catalog.int4;
  passing pg_catalog.int4;
  was_exact pg_catalog.bool;
BEGIN
  complete := false;
  IF most OPERATOR(pg_catalog.=) 0 OR wanted IS NULL THEN
    RETURN;
  END IF;
  FOR n IN 1 .. pg_catalog.cardinality(key) LOOP
    and_key := pg_catalog.concat(and_key, pg_catalog.format(', e.%I', key[n]));
    key_as := pg_catalog.concat(key_as, pg_catalog.format(', e.%I as k%s', key[n], n));
    by_key_as := pg_catalog.concat(by_key_as, ', u.k', n);
  END LOOP;
  PERFORM gte_small.scan_settings(target, reach);
  inner_statement := pg_catalog.format(statement, embedding, only_own, target, filled, conditions, measure,
    CASE WHEN half THEN 'half_distance' ELSE 'distance' END, CASE WHEN by_key THEN and_key ELSE '' END,
    CASE WHEN second IS NOT NULL THEN key_as ELSE '' END);
  IF second IS NOT NULL THEN
    -- Copies of a vector hide other rows from the index. A second index has the rows that are not such copies.
    inner_statement := pg_catalog.format('select * from ((%s) union (%s)) u order by %s limit $2', inner_statement,
      pg_catalog.format(statement, embedding, only_own, target, filled, pg_catalog.concat(conditions, ' and ', second), measure,
                        'second_distance', '', key_as), by_key_as);
  END IF;
  EXECUTE pg_catalog.format(summary, inner_statement) INTO parts, places, distances, seen, passing USING wanted, reach, bound;
  was_exact := scans OPERATOR(pg_catalog.=) gte_small.index_scans();
  -- A scan that met a row beyond the threshold has met the rows above it. Only under a filter or a policy: there a
  -- scan ends short often, otherwise because the index has no more to give.
  IF seen OPERATOR(pg_catalog.<) most AND (everything OR NOT was_exact)
     -- Partitions have a scan each, and so has the second index: one can end short while another meets a row beyond the
     -- threshold.
     AND (passing OPERATOR(pg_catalog.=) seen OR only_own OPERATOR(pg_catalog.=) '' OR second IS NOT NULL OR conditions OPERATOR(pg_catalog.=) '' AND NOT pg_catalog.row_security_active(target))
     OR reach OPERATOR(pg_catalog.>) most
        AND gte_small.ends_in_a_tie(distances, most, reach, bound, gte_small.order_error(half)) THEN
    EXECUTE pg_catalog.format(summary, pg_catalog.format(statement, embedding, only_own, target,
        CASE WHEN everything THEN 'true' ELSE filled END, conditions, 'exact_distance', 'exact_distance', and_key, ''))
      INTO parts, places, distances, seen, passing USING wanted, most, bound;
    was_exact := true;
  END IF;
  complete := was_exact AND seen OPERATOR(pg_catalog.<) most;
END
$body$;
COMMENT ON FUNCTION gte_small.nearest_places(pg_catalog.regclass, pg_catalog.name, pg_catalog.name[], pg_catalog.bool, vector, pg_catalog.int4, pg_catalog.float8, pg_catalog.jsonb, pg_catalog.bool) IS
  'part of the search functions: the places of the nearest rows, and their distances';

-- An index of halfvec orders by distances of half precision. Their error is less than 0.0002.
CREATE FUNCTION gte_small.order_error(half pg_catalog.bool)
  RETURNS pg_catalog.float8
  LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT CASE WHEN half THEN 0.0002 ELSE 0 END::float8
$body$;
COMMENT ON FUNCTION gte_small.order_error(pg_catalog.bool) IS
  'part of the search functions: by how much the order of an index may differ from that of the exact distances';

-- Whether the last of the distances is as near as the most-th, or as the bound: then others may have been left
-- out. "slack" is the error of the order in which they came.
CREATE FUNCTION gte_small.ends_in_a_tie(
    distances pg_catalog.float8[], most pg_catalog.int4, reach pg_catalog.int4, bound pg_catalog.float8, slack pg_catalog.float8)
  RETURNS pg_catalog.bool
  LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT cardinality(distances) >= reach
     AND (SELECT max(d) FROM unnest(distances) d) <= least(bound, (SELECT d FROM unnest(distances) d ORDER BY d OFFSET most - 1 LIMIT 1)) + slack
$body$;
COMMENT ON FUNCTION gte_small.ends_in_a_tie(pg_catalog.float8[], pg_catalog.int4, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8) IS
  'part of the search functions: whether rows about as near as the last one may have been left out';
