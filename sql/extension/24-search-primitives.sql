-- What generated search functions need from the library. Callers write the names with the schema.

-- VOLATILE, since it changes settings. The caller must have a SET clause, whatever it sets: this
-- opens the level on which the settings are undone.
CREATE FUNCTION gte_small.scan_settings(target pg_catalog.regclass, most pg_catalog.int4) RETURNS pg_catalog.void
  AS 'MODULE_PATHNAME', 'scan_settings_gte_small'
  LANGUAGE c VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION gte_small.scan_settings(pg_catalog.regclass, pg_catalog.int4) IS
  'internal: pgvector''s settings for a search for so many rows, until the calling function ends';

-- VOLATILE, since it changes during a statement. A parallel worker counts its own statements.
CREATE FUNCTION gte_small.index_scans() RETURNS pg_catalog.int8
  AS 'MODULE_PATHNAME', 'index_scans_gte_small'
  LANGUAGE c VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION gte_small.index_scans() IS
  'internal: how many statements of this session could miss rows, because their plan has an index by distance; counted from the first call on';

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
