-- The loaded model, and counters of its work.

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
    OUT source pg_catalog.text,
    OUT pooling pg_catalog.text,
    OUT query_prompt pg_catalog.text,
    OUT document_prompt pg_catalog.text)
  AS 'MODULE_PATHNAME', 'embed_model_gte_small'
  LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION embed_model() IS
  'the model this session embeds with; its directory only for members of pg_read_all_settings';

CREATE FUNCTION gte_small.embed_model(
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
    OUT source pg_catalog.text,
    OUT pooling pg_catalog.text,
    OUT query_prompt pg_catalog.text,
    OUT document_prompt pg_catalog.text)
  AS 'MODULE_PATHNAME', 'embed_model_gte_small'
  LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION gte_small.embed_model() IS
  'twin of embed_model()';

CREATE FUNCTION embed_stats(
    OUT calls pg_catalog.int8,
    OUT memo_hits pg_catalog.int8,
    OUT model_runs pg_catalog.int8,
    OUT texts pg_catalog.int8,
    OUT tokens pg_catalog.int8,
    OUT truncated_texts pg_catalog.int8,
    OUT model_seconds pg_catalog.float8,
    OUT unknown_tokens pg_catalog.int8)
  AS 'MODULE_PATHNAME', 'embed_stats_gte_small'
  LANGUAGE c VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION embed_stats() IS
  'what this session has embedded so far: texts asked for, memo hits, forward passes, texts and tokens the model read, truncated texts, seconds, tokens of words that the vocabulary does not have';
