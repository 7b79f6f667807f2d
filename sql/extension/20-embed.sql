-- The functions that embed texts, and the trigger that keeps embeddings up to date. The functions have twins
-- in the schema gte_small, for the internal and the generated functions.

-- COST 1000000: a forward pass takes milliseconds. At a cost of 100 the planner chooses a generic
-- plan for a prepared search, which runs the model seven times per query. At this cost it keeps the
-- custom plan, which runs the model once.
CREATE FUNCTION embed(content pg_catalog.text) RETURNS vector(384)
  AS 'MODULE_PATHNAME', 'embed_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION embed(pg_catalog.text) IS
  'embedding of a text that is searched: 384 dimensions, unit length';

CREATE FUNCTION embed(contents pg_catalog.text[]) RETURNS vector[]
  AS 'MODULE_PATHNAME', 'embed_array_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION embed(pg_catalog.text[]) IS
  'embeddings of many texts that are searched, in their order; NULL for NULL';

CREATE FUNCTION embed_query(search pg_catalog.text) RETURNS vector(384)
  AS 'MODULE_PATHNAME', 'embed_query_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION embed_query(pg_catalog.text) IS
  'embedding of a search string, with the prompt that the model has for queries; refuses a blank one and one that is a vector literal';

CREATE FUNCTION embed_trigger() RETURNS trigger
  AS 'MODULE_PATHNAME', 'embed_trigger_gte_small'
  LANGUAGE c;
COMMENT ON FUNCTION embed_trigger() IS
  'BEFORE INSERT OR UPDATE trigger that embeds text columns: embed_trigger(embedding column, text column, ...)';

CREATE FUNCTION gte_small.embed(content pg_catalog.text) RETURNS vector(384)
  AS 'MODULE_PATHNAME', 'embed_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION gte_small.embed(pg_catalog.text) IS
  'twin of embed(text)';

CREATE FUNCTION gte_small.embed(contents pg_catalog.text[]) RETURNS vector[]
  AS 'MODULE_PATHNAME', 'embed_array_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION gte_small.embed(pg_catalog.text[]) IS
  'twin of embed(text[])';

CREATE FUNCTION gte_small.embed_query(search pg_catalog.text) RETURNS vector(384)
  AS 'MODULE_PATHNAME', 'embed_query_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION gte_small.embed_query(pg_catalog.text) IS
  'twin of embed_query(text)';
