-- gte-small 0.1.0
-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION "gte-small" CASCADE" to load this file. \quit

-- Below, vector stands unqualified, because the extension's schema is not known to this script on
-- PostgreSQL 14 and 15. Anybody who may create objects in a schema of the search_path could plant
-- a type of that name and have it become the result type of functions owned by a superuser.
DO $check$
DECLARE
  vector_extension pg_catalog.oid;
  found pg_catalog.oid;
  operator_name pg_catalog.text;
BEGIN
  SELECT e.oid INTO vector_extension FROM pg_catalog.pg_extension e
   WHERE e.extname OPERATOR(pg_catalog.=) 'vector';
  found := pg_catalog.to_regtype('vector')::pg_catalog.oid;
  IF vector_extension IS NULL OR found IS NULL OR NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d
     WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid
       AND d.objid OPERATOR(pg_catalog.=) found
       AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid
       AND d.refobjid OPERATOR(pg_catalog.=) vector_extension
       AND d.deptype OPERATOR(pg_catalog.=) 'e') THEN
    RAISE EXCEPTION 'type "vector" is not the one of extension "vector"'
      USING ERRCODE = 'duplicate_object',
            DETAIL = 'Another type of that name comes first in the search path; the extension was not installed.',
            HINT = 'Drop or rename the other type, or install the extension into the schema of extension "vector".';
  END IF;
  FOREACH operator_name IN ARRAY ARRAY['<#>', '<=>', '<->'] LOOP
    found := pg_catalog.to_regoperator(operator_name OPERATOR(pg_catalog.||) '(vector,vector)')::pg_catalog.oid;
    IF found IS NULL OR NOT EXISTS (
      SELECT FROM pg_catalog.pg_depend d
       WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_operator'::pg_catalog.regclass::pg_catalog.oid
         AND d.objid OPERATOR(pg_catalog.=) found
         AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid
         AND d.refobjid OPERATOR(pg_catalog.=) vector_extension
         AND d.deptype OPERATOR(pg_catalog.=) 'e') THEN
      RAISE EXCEPTION 'operator % (vector, vector) is not the one of extension "vector"', operator_name
        USING ERRCODE = 'duplicate_object',
              DETAIL = 'Another operator of that name comes first in the search path; the extension was not installed.',
              HINT = 'Drop the other operator, or install the extension into the schema of extension "vector".';
    END IF;
  END LOOP;
END
$check$;

-- COST 1000000: a forward pass takes milliseconds. At a cost of 100 the planner goes for a generic
-- plan of a prepared search and runs the model seven times a query; at this one it stays with the
-- custom plan and runs it once.
CREATE FUNCTION embed(content pg_catalog.text) RETURNS vector(384)
  AS 'MODULE_PATHNAME', 'embed_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION embed(pg_catalog.text) IS
  'embedding of a text: 384 dimensions, unit length';

CREATE FUNCTION embed(contents pg_catalog.text[]) RETURNS vector[]
  AS 'MODULE_PATHNAME', 'embed_array_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION embed(pg_catalog.text[]) IS
  'embeddings of many texts, in their order; NULL for NULL';

CREATE FUNCTION embed_query(search pg_catalog.text) RETURNS vector(384)
  AS 'MODULE_PATHNAME', 'embed_query_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION embed_query(pg_catalog.text) IS
  'embedding of a search string; refuses a blank one and one that is a vector literal';

CREATE FUNCTION embed_trigger() RETURNS trigger
  AS 'MODULE_PATHNAME', 'embed_trigger_gte_small'
  LANGUAGE c;
COMMENT ON FUNCTION embed_trigger() IS
  'BEFORE INSERT OR UPDATE trigger that embeds text columns: embed_trigger(embedding column, text column, ...)';

CREATE FUNCTION embed_model(
    OUT name pg_catalog.text,
    OUT fingerprint pg_catalog.text,
    OUT dims pg_catalog.int4,
    OUT max_tokens pg_catalog.int4,
    OUT suggested_threshold pg_catalog.float8,
    OUT "precision" pg_catalog.text,
    OUT kernels pg_catalog.text,
    OUT threads pg_catalog.int4,
    OUT preloaded pg_catalog.bool,
    OUT load_seconds pg_catalog.float8,
    OUT source pg_catalog.text)
  AS 'MODULE_PATHNAME', 'embed_model_gte_small'
  LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION embed_model() IS
  'the model this session embeds with; its directory only for members of pg_read_all_settings';

CREATE FUNCTION embed_stats(
    OUT calls pg_catalog.int8,
    OUT memo_hits pg_catalog.int8,
    OUT model_runs pg_catalog.int8,
    OUT texts pg_catalog.int8,
    OUT tokens pg_catalog.int8,
    OUT truncated_texts pg_catalog.int8,
    OUT model_seconds pg_catalog.float8)
  AS 'MODULE_PATHNAME', 'embed_stats_gte_small'
  LANGUAGE c VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION embed_stats() IS
  'what this session has embedded so far: texts asked for, memo hits, forward passes, texts and tokens the model read, truncated texts, seconds';
