-- Long texts: the number of their tokens, and chunks that the model can read.

-- COST 1000: a page of text takes about 100 µs, at most a hundredth of a forward pass.
CREATE FUNCTION token_count(content pg_catalog.text) RETURNS pg_catalog.int4
  AS 'MODULE_PATHNAME', 'token_count_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION token_count(pg_catalog.text) IS
  'tokens of a text as embed(text) counts them, special tokens and the prompt of the model included, without a limit';

-- ROWS 10: a text of ten pages has about ten chunks.
CREATE FUNCTION chunk_text(
    content pg_catalog.text,
    max_tokens pg_catalog.int4 DEFAULT 512,
    overlap pg_catalog.int4 DEFAULT 0)
  RETURNS TABLE (
    ordinal pg_catalog.int4,
    chunk pg_catalog.text,
    start pg_catalog.int4,
    tokens pg_catalog.int4)
  AS 'MODULE_PATHNAME', 'chunk_text_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10000 ROWS 10;
COMMENT ON FUNCTION chunk_text(pg_catalog.text, pg_catalog.int4, pg_catalog.int4) IS
  'a long text as parts of at most max_tokens tokens, cut between sentences where possible; start counts characters from 1';

-- For generated functions.
CREATE FUNCTION gte_small.chunk_text(
    content pg_catalog.text,
    max_tokens pg_catalog.int4 DEFAULT 512,
    overlap pg_catalog.int4 DEFAULT 0)
  RETURNS TABLE (
    ordinal pg_catalog.int4,
    chunk pg_catalog.text,
    start pg_catalog.int4,
    tokens pg_catalog.int4)
  AS 'MODULE_PATHNAME', 'chunk_text_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10000 ROWS 10;
COMMENT ON FUNCTION gte_small.chunk_text(pg_catalog.text, pg_catalog.int4, pg_catalog.int4) IS
  'twin of chunk_text(text, int, int)';
