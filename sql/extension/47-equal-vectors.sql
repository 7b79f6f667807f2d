-- Equal vectors, and the second index for the rows around them.
--
-- HNSW links a row to its nearest neighbours. pgvector stores up to ten equal vectors as one element of
-- the graph. More copies of a text are elements at distance 0 of each other, which fill each other's
-- lists of neighbours. A row that arrives later is as far from one copy as from the next, and then the
-- heuristic of HNSW prefers the copy. No list leads to the row, so no search finds it, whatever
-- hnsw.ef_search is. A REINDEX builds the same graph. The cure is a second HNSW index, of the rows whose
-- vector is not frequent. The first index still finds the copies.

-- The signs of the 384 numbers, as a number. Copies of a text have the same signs, also where their
-- vectors differ in the last digit. The body is a parse tree, as that of gte_small.distance.
CREATE FUNCTION gte_small.signature(one vector) RETURNS pg_catalog.int8
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN pg_catalog.hashtextextended(binary_quantize($1)::pg_catalog.text COLLATE pg_catalog."C", 0);
COMMENT ON FUNCTION gte_small.signature(vector) IS
  'part of the search functions: a number that copies of a vector have in common';

-- Orders vectors of unit length as gte_small.distance does. Both indexes can serve a search by the inner
-- product, and the planner can't estimate the condition of the second one. The second index is of this
-- operator, so that the choice is not the planner's.
CREATE FUNCTION gte_small.second_distance(one vector, other vector) RETURNS pg_catalog.float8
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN $1 <-> $2;
COMMENT ON FUNCTION gte_small.second_distance(vector, vector) IS
  'part of the search functions: the Euclidean distance, for which the index of rows without frequent vectors is used';

-- The second index of an embedding column, and the signatures of the vectors that are not in it.
CREATE FUNCTION gte_small.second_index(
    target pg_catalog.regclass, embedding pg_catalog.name,
    OUT indexrelid pg_catalog.oid, OUT frequent pg_catalog.int8[])
  RETURNS SETOF pg_catalog.record
  LANGUAGE sql STABLE ROWS 1 SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT i.indexrelid, substring(pg_get_expr(i.indpred, i.indrelid) from $re$'(\{[-0-9,]+\})'$re$)::int8[]
    FROM pg_index i
   WHERE i.indrelid = target AND i.indpred IS NOT NULL AND i.indisvalid
     AND obj_description(i.indexrelid, 'pg_class') = gte_small.mark(embedding)
$body$;
COMMENT ON FUNCTION gte_small.second_index(pg_catalog.regclass, pg_catalog.name) IS
  'part of the search functions: the index of the rows without frequent vectors, and which vectors are frequent';

-- The condition of the second index, on a row. The planner uses the index only for the same expression.
-- NULL: there is no such index, and the search needs no second statement.
-- Each search calls it: a plan that stays and an index scan of pg_index take a third of the time of second_index().
CREATE FUNCTION gte_small.second_condition(
    target pg_catalog.regclass, embedding pg_catalog.name, row_name pg_catalog.name DEFAULT 'e')
  RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off SET plan_cache_mode = force_generic_plan
AS $body$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = target AND i.indpred IS NOT NULL) THEN
    RETURN NULL;
  END IF;
  RETURN (SELECT format('gte_small.signature(%I.%I) operator(pg_catalog.<>) ALL (%L::pg_catalog.int8[])', row_name, embedding, s.frequent::text)
            FROM gte_small.second_index(target, embedding) s WHERE s.frequent IS NOT NULL LIMIT 1);
END
$body$;
COMMENT ON FUNCTION gte_small.second_condition(pg_catalog.regclass, pg_catalog.name, pg_catalog.name) IS
  'part of the search functions: the condition of the index of rows without frequent vectors, or NULL where there is none';

-- The vectors that 100 rows or more have, the most frequent first. Measured: up to 50 copies of each of
-- 20 texts no row of 2,300 was lost; of 300 copies 77. It reads the whole table, 1 to 2 microseconds a
-- row. Statistics of ANALYZE can't say it, because they leave out values of more than 1,024 bytes.
CREATE FUNCTION gte_small.frequent_vectors(
    target pg_catalog.regclass, embedding pg_catalog.name,
    OUT signature pg_catalog.int8, OUT copies pg_catalog.int8)
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
BEGIN
  RETURN QUERY EXECUTE format(
    'SELECT s.signature, count(*) FROM (SELECT gte_small.signature(t.%I) AS signature FROM %s %s AS t WHERE t.%1$I IS NOT NULL) s
      GROUP BY s.signature HAVING count(*) >= 100 ORDER BY count(*) DESC, s.signature LIMIT 1000',
    embedding, CASE (SELECT c.relkind FROM pg_class c WHERE c.oid = target) WHEN 'p' THEN '' ELSE 'ONLY' END, target);
END
$body$;
COMMENT ON FUNCTION gte_small.frequent_vectors(pg_catalog.regclass, pg_catalog.name) IS
  'part of embedding_status: the vectors that 100 rows or more have, by their signatures';

-- Frequent vectors that the second index does not leave out. More than that is no reason for a new
-- index: rows that lost their copies are in the first index.
CREATE FUNCTION gte_small.crowded(
    target pg_catalog.regclass, embedding pg_catalog.name,
    OUT vectors pg_catalog.int8, OUT copies pg_catalog.int8)
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT count(*), coalesce(sum(f.copies), 0)::int8 FROM gte_small.frequent_vectors(target, embedding) f
   WHERE NOT EXISTS (SELECT FROM gte_small.second_index(target, embedding) s WHERE f.signature = ANY (s.frequent))
$body$;
COMMENT ON FUNCTION gte_small.crowded(pg_catalog.regclass, pg_catalog.name) IS
  'part of embedding_status: how many vectors have so many copies that an index can lose the rows beside them';

-- What embedding_status says: NULL where nothing is to be done. It has no rows to say it of where the
-- table has no index, since a search is then exact.
CREATE FUNCTION gte_small.crowded_hint(target pg_catalog.regclass, embedding pg_catalog.name, content pg_catalog.name[])
  RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT format('%s rows have %s, and an index can lose the rows beside them: %s',
                c.copies, CASE c.vectors WHEN 1 THEN 'one and the same vector'
                                         ELSE format('the same vector as 99 others or more (%s vectors)', c.vectors) END,
                -- Chunks are searched by the functions of their documents.
                coalesce((SELECT rtrim(gte_small.enable_again(k.target, d.arguments[1], d.arguments[2]), ';')
                            FROM gte_small.document_keys(target) k CROSS JOIN LATERAL gte_small.document_search(k.target) d WHERE d.chunks = crowded_hint.target),
                         format('SELECT enable_semantic_search(%L, %L, %L)', target, content, embedding)))
    FROM gte_small.crowded(target, embedding) c WHERE c.vectors > 0
$body$;
COMMENT ON FUNCTION gte_small.crowded_hint(pg_catalog.regclass, pg_catalog.name, pg_catalog.name[]) IS
  'part of embedding_status: says that copies of a vector hide rows from the index, and what to do';
