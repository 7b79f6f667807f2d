-- pgvector's inner product, under names that ALTER SCHEMA and ALTER EXTENSION vector SET SCHEMA do not change:
-- a body behind RETURN is stored as a parse tree, which knows the operator by its OID. The planner inlines
-- both functions, so the first one uses an index as the operator itself does.
CREATE FUNCTION gte_small.distance(one vector, other vector) RETURNS pg_catalog.float8
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN $1 <#> $2;
COMMENT ON FUNCTION gte_small.distance(vector, vector) IS
  'part of the search functions: the negative inner product, for which an HNSW index with vector_ip_ops is used';

-- An index serves operators only. By the function, the order is exact.
CREATE FUNCTION gte_small.exact_distance(one vector, other vector) RETURNS pg_catalog.float8
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN vector_negative_inner_product($1, $2);
COMMENT ON FUNCTION gte_small.exact_distance(vector, vector) IS
  'part of the search functions: the negative inner product, for which no index is used';

-- By an index of halfvec, which is half the size.
CREATE FUNCTION gte_small.half_distance(one vector, other vector) RETURNS pg_catalog.float8
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN ($1::halfvec(384)) <#> ($2::halfvec(384));
COMMENT ON FUNCTION gte_small.half_distance(vector, vector) IS
  'part of the search functions: the negative inner product in half precision, for which an HNSW index with halfvec_ip_ops is used';

-- PL/pgSQL can't name the type of a variable without pgvector's schema, so it keeps a vector as text.
CREATE FUNCTION gte_small.vector_of(value pg_catalog.text) RETURNS vector
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN $1::vector;
COMMENT ON FUNCTION gte_small.vector_of(pg_catalog.text) IS
  'part of embedding_recall: a vector from its text';
