-- What generated search functions need from the library. Callers write the names with the schema.

CREATE FUNCTION gte_small.below_support(request pg_catalog.internal) RETURNS pg_catalog.internal
  AS 'MODULE_PATHNAME', 'below_support_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION gte_small.below_support(pg_catalog.internal) IS
  'internal: planner support of gte_small.below';

CREATE FUNCTION gte_small.below(distance pg_catalog.float8, bound pg_catalog.float8) RETURNS pg_catalog.bool
  AS 'float8lt'
  LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE
  SUPPORT gte_small.below_support;
COMMENT ON FUNCTION gte_small.below(pg_catalog.float8, pg_catalog.float8) IS
  'internal: distance < bound; a search without LIMIT that has this condition is exact';
