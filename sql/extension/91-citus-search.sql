-- The search functions in a database with Citus. They are PL/pgSQL, and carry whole rows instead of places, so one
-- body serves the table before and after it is distributed.

-- The nearest rows of a table. "attempt" counts the statements that were run: only the rows of the last one count.
-- Rows beyond "bound" may be among them. See nearest_places() on the order of the statements, search_path and SET.
--
-- On a distributed table the first statement uses the index of each shard. The workers don't say whether they did, and one
-- shard's scan can end short while another's meets a row beyond the bound. So the exact statement follows wherever the first
-- one comes back short.
CREATE FUNCTION gte_small.nearest_rows(
    target pg_catalog.regclass, embedding pg_catalog.name, key pg_catalog.name[], half pg_catalog.bool,
    wanted vector, most pg_catalog.int4, bound pg_catalog.float8, filter pg_catalog.jsonb, of_kind anyelement,
    OUT hit anyelement, OUT d pg_catalog.float8, OUT attempt pg_catalog.int4)
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql STABLE PARALLEL UNSAFE ROWS 10 SET plan_cache_mode = force_custom_plan
AS $body$
DECLARE
  -- $1 is the vector, $2 the number of rows.
  statement CONSTANT pg_catalog.text :=
    'select (e.*)::%6$s as hit, gte_small.exact_distance(e.%1$I, $1) as d, %7$s as hides from %2$s e where e.%1$I is not null%3$s '
     'order by gte_small.%4$s(e.%1$I, $1)%5$s limit $2';
  -- Of the index without the vectors that many rows have, see nearest_places().
  second CONSTANT pg_catalog.text := gte_small.second_condition(target, embedding);
  rows_of CONSTANT pg_catalog.text := (SELECT q.rows_of FROM gte_small.qualified(target) q);
  -- "e" alone would be a column of this name.
  row_type CONSTANT pg_catalog.text := (SELECT q.tbl FROM gte_small.qualified(target) q);
  conditions CONSTANT pg_catalog.text := gte_small.conditions(target, filter);
  and_key CONSTANT pg_catalog.text := (SELECT pg_catalog.string_agg(pg_catalog.format(', e.%I', k.name), '' ORDER BY k.n)
                                         FROM ROWS FROM (pg_catalog.unnest(key)) WITH ORDINALITY AS k (name, n));
  by_key CONSTANT pg_catalog.bool := gte_small.sorts_by_index_and_key() AND NOT half;
  -- As in nearest_places(): a few rows more tell whether others about as near as the last one were left out.
  reach CONSTANT pg_catalog.int4 := CASE WHEN by_key THEN most
    ELSE LEAST((most::pg_catalog.int8 OPERATOR(pg_catalog.+) (most OPERATOR(pg_catalog./) 8)) OPERATOR(pg_catalog.+) 3, 2147483647) END;
  distances pg_catalog.float8[] := '{}';
  nearest pg_catalog.record;
  one pg_catalog.record;
BEGIN
  attempt := 1;
  IF most OPERATOR(pg_catalog.=) 0 OR wanted IS NULL THEN
    RETURN;
  ELSIF NOT gte_small.is_distributed(target) THEN
    SELECT * INTO nearest FROM gte_small.nearest_places(target, embedding, key, half, wanted, most, bound, filter, false);
    RETURN QUERY EXECUTE pg_catalog.format(
      'select (e.*)::%s, u.d, 1 from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) u (part, place, d) '
      'join %s e on e.ctid operator(pg_catalog.=) u.place and e.tableoid operator(pg_catalog.=) u.part', row_type, rows_of)
      USING nearest.parts, nearest.places, nearest.distances;
    RETURN;
  END IF;
  FOR one IN EXECUTE pg_catalog.format(statement, embedding, rows_of, conditions, CASE WHEN half THEN 'half_distance' ELSE 'distance' END,
      CASE WHEN by_key THEN and_key ELSE '' END, row_type,
      CASE WHEN second IS NULL THEN 'true' ELSE pg_catalog.format('not (%s)', second) END) USING wanted, reach LOOP
    -- The other rows come from the second index.
    CONTINUE WHEN NOT one.hides;
    distances := distances OPERATOR(pg_catalog.||) one.d;
    hit := one.hit;
    d := one.d;
    RETURN NEXT;
  END LOOP;
  IF second IS NOT NULL THEN
    FOR one IN EXECUTE pg_catalog.format(statement, embedding, rows_of, pg_catalog.concat(conditions, ' and ', second), 'second_distance', '', row_type, 'false')
        USING wanted, reach LOOP
      distances := distances OPERATOR(pg_catalog.||) one.d;
      hit := one.hit;
      d := one.d;
      RETURN NEXT;
    END LOOP;
  END IF;
  IF pg_catalog.cardinality(distances) OPERATOR(pg_catalog.<) most
     OR reach OPERATOR(pg_catalog.>) most AND gte_small.ends_in_a_tie(distances, most, reach, bound, gte_small.order_error(half)) THEN
    attempt := 2;
    FOR one IN EXECUTE pg_catalog.format(statement, embedding, rows_of, conditions, 'exact_distance', and_key, row_type, 'true') USING wanted, most LOOP
      hit := one.hit;
      d := one.d;
      RETURN NEXT;
    END LOOP;
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.nearest_rows(pg_catalog.regclass, pg_catalog.name, pg_catalog.name[], pg_catalog.bool, vector, pg_catalog.int4, pg_catalog.float8, pg_catalog.jsonb, anyelement) IS
  'part of the search functions in a database with Citus: the nearest rows of a table';

-- The key of a row as JSON, and the condition that a row has the key "json_key", with the operators of the primary key.
-- Both are SQL.
CREATE FUNCTION gte_small.json_of_key(row_name pg_catalog.text, key pg_catalog.name[]) RETURNS pg_catalog.text
  LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT format('pg_catalog.jsonb_build_array(%s)', string_agg(format('%s.%I::pg_catalog.text', row_name, c.name), ', ' ORDER BY c.n))
    FROM unnest(key) WITH ORDINALITY AS c (name, n)
$body$;
COMMENT ON FUNCTION gte_small.json_of_key(pg_catalog.text, pg_catalog.name[]) IS
  'part of the search of distributed tables: the expression of a row''s key';

CREATE FUNCTION gte_small.has_key_of_json(
    target pg_catalog.regclass, row_name pg_catalog.text, key pg_catalog.name[], json_key pg_catalog.text)
  RETURNS pg_catalog.text
  LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT string_agg(format('%s.%I operator(%s) (%s operator(pg_catalog.->>) %s)::%s', row_name, a.attname, coalesce(e.equals, 'pg_catalog.='), json_key, c.n - 1,
                           format_type(a.atttypid, a.atttypmod)), ' and ' ORDER BY c.n)
    FROM unnest(key) WITH ORDINALITY AS c (name, n)
    JOIN pg_attribute a ON a.attrelid = target AND a.attname = c.name
    LEFT JOIN LATERAL (
      SELECT format('%I.%s', s.nspname, o.oprname) AS equals
        FROM pg_index i CROSS JOIN unnest(i.indkey, i.indclass) AS u (attnum, class)
        JOIN pg_opclass p ON p.oid = u.class
        JOIN pg_amop m ON m.amopfamily = p.opcfamily AND m.amoplefttype = p.opcintype AND m.amoprighttype = p.opcintype AND m.amopstrategy = 3
        JOIN pg_operator o ON o.oid = m.amopopr JOIN pg_namespace s ON s.oid = o.oprnamespace
       WHERE i.indrelid = target AND i.indisprimary AND u.attnum = a.attnum) e ON true
$body$;
COMMENT ON FUNCTION gte_small.has_key_of_json(pg_catalog.regclass, pg_catalog.text, pg_catalog.name[], pg_catalog.text) IS
  'part of the search of distributed tables: the condition that a row has a key';

-- Rows by meaning and by words, in any order. On a distributed table a row is known by its primary key, and each word
-- is one statement, because Citus plans no LIMIT for each row of a join. See hybrid_statement() on the formula.
CREATE FUNCTION gte_small.hybrid_rows(
    of_kind anyelement, target pg_catalog.regclass, embedding pg_catalog.name, key pg_catalog.name[], half pg_catalog.bool,
    content pg_catalog.name[], language pg_catalog.regconfig, search pg_catalog.text, wanted vector, most pg_catalog.int4,
    full_text_weight pg_catalog.float8, semantic_weight pg_catalog.float8, rrf_k pg_catalog.int4, filter pg_catalog.jsonb,
    OUT hit anyelement, OUT full_text_rank pg_catalog.int8, OUT semantic_rank pg_catalog.int8, OUT score pg_catalog.float8)
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql STABLE PARALLEL UNSAFE ROWS 100 SET plan_cache_mode = force_custom_plan
  -- Citus sends keys as literals of this setting, and workers read dates that this session wrote.
  SET standard_conforming_strings = on SET datestyle = iso SET intervalstyle = postgres SET extra_float_digits = 1
AS $body$
#variable_conflict use_column
DECLARE
  depth CONSTANT pg_catalog.int4 := LEAST(GREATEST(2 OPERATOR(pg_catalog.*) most::pg_catalog.int8, 60), 2147483647)::pg_catalog.int4;
  text_weight CONSTANT pg_catalog.float8 := COALESCE(full_text_weight, 1);
  vector_weight CONSTANT pg_catalog.float8 := COALESCE(semantic_weight, 1);
  k CONSTANT pg_catalog.int4 := GREATEST(COALESCE(rrf_k, 60), 0);
  rows_of CONSTANT pg_catalog.text := (SELECT q.rows_of FROM gte_small.qualified(target) q);
  -- "e" alone would be a column of this name.
  row_type CONSTANT pg_catalog.text := (SELECT q.tbl FROM gte_small.qualified(target) q);
  conditions CONSTANT pg_catalog.text := gte_small.conditions(target, filter);
  words CONSTANT pg_catalog.text := gte_small.words_expression(target, content, language, true);
  -- The key of a row e as JSON, and its columns of a key u.k.
  key_of CONSTANT pg_catalog.text := gte_small.json_of_key('e', key);
  by_key CONSTANT pg_catalog.text := gte_small.has_key_of_json(target, 'e', key, 'u.k');
  second CONSTANT pg_catalog.text := gte_small.second_condition(target, embedding);
  near_keys pg_catalog.jsonb[];
  near_distances pg_catalog.float8[];
  keys pg_catalog.jsonb[];
  distances pg_catalog.float8[];
  hit_keys pg_catalog.jsonb[] := '{}';
  hit_distances pg_catalog.float8[] := '{}';
  weights pg_catalog.float8[] := '{}';
  terms pg_catalog.tsquery[];
  n pg_catalog.int4;
BEGIN
  IF most OPERATOR(pg_catalog.=) 0 OR wanted IS NULL THEN
    RETURN;
  ELSIF NOT gte_small.is_distributed(target) THEN
    RETURN QUERY EXECUTE pg_catalog.format(
      'select (e.*)::%s, u.full_text_rank, u.semantic_rank, u.score from gte_small.hybrid_places($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) u '
      'join %s e on e.ctid operator(pg_catalog.=) u.place and e.tableoid operator(pg_catalog.=) u.part', row_type, rows_of)
      USING target, embedding, key, half, content, language, search, wanted, most, text_weight, vector_weight, k, filter;
    RETURN;
  ELSIF 'ctid' OPERATOR(pg_catalog.=) ANY (key) THEN
    RAISE EXCEPTION 'distributed table % has no primary key', target
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'Hybrid search joins two lists of rows by it; nothing was searched.',
            HINT = pg_catalog.format('ALTER TABLE %s ADD PRIMARY KEY (...), SELECT enable_semantic_search(%L) again, or search by meaning alone.', target, target);
  END IF;
  -- The nearest rows, by the index, by the second index if there is one, and exactly where they end short. "hides" as in
  -- nearest_rows().
  FOR round IN 1 .. 3 LOOP
    CONTINUE WHEN round OPERATOR(pg_catalog.=) 2 AND second IS NULL;
    EXIT WHEN round OPERATOR(pg_catalog.=) 3 AND pg_catalog.cardinality(near_keys) OPERATOR(pg_catalog.>=) depth;
    EXECUTE pg_catalog.format(
      'select pg_catalog.array_agg(s.k), pg_catalog.array_agg(s.d) from (select %s as k, gte_small.exact_distance(e.%2$I, $1) as d, %6$s as hides '
        'from %3$s e where e.%2$I is not null%4$s order by gte_small.%5$s(e.%2$I, $1) limit $2) s where s.hides', key_of, embedding, rows_of,
      CASE WHEN round OPERATOR(pg_catalog.=) 2 THEN pg_catalog.concat(conditions, ' and ', second) ELSE conditions END,
      CASE WHEN round OPERATOR(pg_catalog.=) 3 THEN 'exact_distance' WHEN round OPERATOR(pg_catalog.=) 2 THEN 'second_distance'
           WHEN half THEN 'half_distance' ELSE 'distance' END,
      CASE WHEN round OPERATOR(pg_catalog.=) 1 AND second IS NOT NULL THEN pg_catalog.format('not (%s)', second) ELSE 'true' END)
      INTO keys, distances USING wanted, depth;
    near_keys := CASE WHEN round OPERATOR(pg_catalog.=) 3 THEN keys ELSE near_keys OPERATOR(pg_catalog.||) keys END;
    near_distances := CASE WHEN round OPERATOR(pg_catalog.=) 3 THEN distances ELSE near_distances OPERATOR(pg_catalog.||) distances END;
  END LOOP;
  IF second IS NOT NULL THEN
    SELECT pg_catalog.array_agg(u.k), pg_catalog.array_agg(u.d) INTO near_keys, near_distances
      FROM (SELECT v.*, pg_catalog.rank() OVER (ORDER BY v.d) AS position
              FROM ROWS FROM (pg_catalog.unnest(near_keys), pg_catalog.unnest(near_distances)) v (k, d)) u
     WHERE u.position OPERATOR(pg_catalog.<=) depth;
  END IF;

  -- Each word by itself, then all of them. A word of more than 200 rows does not count.
  terms := gte_small.search_terms(language, search);
  terms := terms OPERATOR(pg_catalog.||) (SELECT pg_catalog.string_agg(u.term::pg_catalog.text, ' & ')::pg_catalog.tsquery
                                            FROM pg_catalog.unnest(terms) u (term));
  FOR i IN 1 .. COALESCE(pg_catalog.cardinality(terms), 0) LOOP
    CONTINUE WHEN terms[i] IS NULL;
    EXECUTE pg_catalog.format(
      'select pg_catalog.array_agg(f.k), pg_catalog.array_agg(f.d) from (select %s as k, gte_small.exact_distance(e.%I, $1) as d '
        'from %s e where %s operator(gte_small.@@@) $2%s limit 201) f', key_of, embedding, rows_of, words, conditions)
      INTO keys, distances USING wanted, terms[i];
    n := COALESCE(pg_catalog.cardinality(keys), 0);
    IF n OPERATOR(pg_catalog.>) 200 AND i OPERATOR(pg_catalog.=) pg_catalog.cardinality(terms) THEN
      -- All words are in many rows: those count that are near.
      EXECUTE pg_catalog.format(
        'select pg_catalog.array_agg(%1$s), pg_catalog.array_agg(gte_small.exact_distance(e.%2$I, $1)) from %3$s e '
          'join pg_catalog.unnest($3) u (k) on %4$s where %5$s operator(gte_small.@@@) $2', key_of, embedding, rows_of, by_key, words)
        INTO keys, distances USING wanted, terms[i], near_keys;
      n := 200;
    END IF;
    IF n OPERATOR(pg_catalog.>) 0 AND n OPERATOR(pg_catalog.<=) 200 AND keys IS NOT NULL THEN
      hit_keys := hit_keys OPERATOR(pg_catalog.||) keys;
      hit_distances := hit_distances OPERATOR(pg_catalog.||) distances;
      weights := weights OPERATOR(pg_catalog.||) pg_catalog.array_fill(
        pg_catalog.ln(1::pg_catalog.float8 OPERATOR(pg_catalog.+) (200::pg_catalog.float8 OPERATOR(pg_catalog./) n::pg_catalog.float8)),
        ARRAY[pg_catalog.cardinality(keys)]);
    END IF;
  END LOOP;

  RETURN QUERY EXECUTE pg_catalog.format($sql$
with semantic as (
  select s.k, pg_catalog.rank() over (order by s.d) as position
    from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2)) s (k, d) where s.d is not null),
full_text as (
  select h.k, pg_catalog.row_number() over (order by pg_catalog.sum(h.w order by h.w) desc, pg_catalog.min(h.d), h.k) as position
    from rows from (pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5)) h (k, d, w) group by h.k order by position limit $6),
fused as materialized (
  select r.k, pg_catalog.max(r.full_text) as full_text, pg_catalog.max(r.semantic) as semantic, pg_catalog.sum(r.score) as score from (
    select t.k, t.position as full_text, null::pg_catalog.int8 as semantic, $7 operator(pg_catalog./) ($9 operator(pg_catalog.+) t.position)::pg_catalog.float8 as score
      from full_text t
    union all
    select s.k, null, s.position, $8 operator(pg_catalog./) ($9 operator(pg_catalog.+) s.position)::pg_catalog.float8 from semantic s) r
  group by r.k order by score desc, semantic, full_text, k limit $10)
select (e.*)::%s, u.full_text, u.semantic, u.score from fused u join %s e on %s$sql$, row_type, rows_of, by_key)
    USING near_keys, near_distances, hit_keys, hit_distances, weights, depth, text_weight, vector_weight, k, most;
END
$body$;
COMMENT ON FUNCTION gte_small.hybrid_rows(anyelement, pg_catalog.regclass, pg_catalog.name, pg_catalog.name[], pg_catalog.bool, pg_catalog.name[], pg_catalog.regconfig, pg_catalog.text, vector, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4, pg_catalog.jsonb) IS
  'part of the search functions in a database with Citus: rows by meaning and by words';

-- The search functions of an embedding column in a database with Citus; see search_functions(). The forms with two
-- arguments read and sort all rows above the threshold, because Citus plans no inlined function.
CREATE FUNCTION gte_small.search_functions_on_citus(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name,
    language pg_catalog.regconfig, query_function pg_catalog.text)
  RETURNS TABLE (name pg_catalog.text, arguments pg_catalog.text, types pg_catalog.text, result pg_catalog.text,
                 attributes pg_catalog.text, body pg_catalog.text, description pg_catalog.text)
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
#variable_conflict use_variable
DECLARE
  form record;
  here record := gte_small.qualified(target);
  columns record := gte_small.returned_columns(target, true);
  key_columns name[] := gte_small.key_columns(target);
  -- Without a primary key, the order of equal rows is left open.
  key text := CASE WHEN 'ctid' <> ALL (key_columns) THEN (SELECT string_agg(format(', (n.hit).%I', c), '' ORDER BY i) FROM unnest(key_columns) WITH ORDINALITY AS u (c, i)) ELSE '' END;
  half bool := gte_small.searches_halfvec(target, embedding);
  vec text := gte_small.vector_schema();
  nearest text := format('(select r.*, pg_catalog.max(r.attempt) over () as last from gte_small.nearest_rows(%L::pg_catalog.regclass, %L, %L, %L, ',
                         target, embedding, key_columns, half);
BEGIN
  FOR form IN SELECT * FROM gte_small.search_functions_local(target, content, embedding, language, query_function) LOOP
    name := form.name; arguments := form.arguments; types := form.types; result := form.result; description := form.description;
    attributes := 'language plpgsql stable parallel unsafe rows 10 cost 100000';
    IF form.result LIKE 'table (item %' THEN
      body := format($sql$
#variable_conflict use_column
begin
  return query select n.hit, n.full_text_rank, n.semantic_rank, n.score
    from gte_small.hybrid_rows(null::%s, %L::pg_catalog.regclass, %L, %L, %L, %L, %L::pg_catalog.regconfig, $1,
           gte_small.embed_query($1), gte_small.count_of($2), $3, $4, $5, $6) n
   order by n.score desc, n.semantic_rank, n.full_text_rank%s
   limit gte_small.count_of($2);
end
$sql$, here.tbl, target, embedding, key_columns, half, content, gte_small.config(language), key);
    ELSIF form.result LIKE 'table (%' THEN
      body := format($sql$
#variable_conflict use_column
begin
  return query select %s
    from %sgte_small.embed_query($1), gte_small.count_of($2), gte_small.bound($3), $4, null::%s) r) n
   where n.d operator(pg_catalog.<) gte_small.bound($3) and n.attempt operator(pg_catalog.=) n.last
   order by n.d%s limit gte_small.count_of($2);
end
$sql$, columns.expressions, nearest, here.tbl, key);
    ELSIF form.arguments LIKE '%match_count%' THEN
      body := format($sql$
begin
  return query select (n.hit).*
    from %s%s, gte_small.count_of($3), gte_small.bound($2), $4, null::%s) r) n
   where n.d operator(pg_catalog.<) gte_small.bound($2) and n.attempt operator(pg_catalog.=) n.last
   order by n.d%s limit gte_small.count_of($3);
end
$sql$, nearest, CASE WHEN starts_with(form.types, 'pg_catalog.text') THEN 'gte_small.embed_query($1)' ELSE 'gte_small.unit($1)' END, here.tbl, key);
    ELSE
      attributes := 'language plpgsql stable parallel unsafe';
      body := format($sql$
#variable_conflict use_variable
declare
  v constant %s.vector := %s;
  bound constant pg_catalog.float8 := gte_small.bound($2);
begin
  return query select e.* from %s e where gte_small.below(gte_small.distance(e.%4$I, v), bound)
   order by gte_small.distance(e.%4$I, v)%5$s;
end
$sql$, vec, CASE WHEN starts_with(form.types, 'pg_catalog.text') THEN 'gte_small.embed_query($1)' ELSE 'gte_small.unit($1)' END,
        here.rows_of, embedding, replace(key, '(n.hit).', 'e.'));
    END IF;
    RETURN NEXT;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION gte_small.search_functions_on_citus(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig, pg_catalog.text) IS
  'part of enable_semantic_search: the search functions of an embedding column in a database with Citus';
