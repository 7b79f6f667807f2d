-- The words of a text for hybrid search, and an index on them that row-level security does not forbid.

-- Under row-level security a condition reaches an index only if every function in it is LEAKPROOF.
-- to_tsvector and ts_match_vq are not. The functions here may be: they raise nothing that depends on
-- a text, they read the arguments only, and every row that the index finds still passes the policy.
-- As with every index, the time of a search tells how many rows have a word.

CREATE FUNCTION gte_small.split(content pg_catalog.text) RETURNS pg_catalog.text
  AS 'MODULE_PATHNAME', 'split_gte_small'
  LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE COST 100;
COMMENT ON FUNCTION gte_small.split(pg_catalog.text) IS
  'the words that a BERT pre-tokenizer sees, with a blank between two; reads 100,000 characters';

-- The columns are separate arguments, because the planner holds COALESCE and || for leaky. The words of
-- the split text go through the same dictionaries, so most of them are words of the text already and
-- take no space in the index.
CREATE FUNCTION gte_small.words(language pg_catalog.regconfig, VARIADIC contents pg_catalog.text[])
  RETURNS pg_catalog.tsvector
  AS 'MODULE_PATHNAME', 'words_gte_small'
  LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION gte_small.words(pg_catalog.regconfig, pg_catalog.text[]) IS
  'the words of a row for hybrid search: those of to_tsvector, and those of the split text; reads 100,000 characters';

-- The casts from text, varchar and name call no function that leaks. The cast from char(n) does.
CREATE FUNCTION gte_small.unpadded(content pg_catalog.bpchar) RETURNS pg_catalog.text
  AS 'rtrim1'
  LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION gte_small.unpadded(pg_catalog.bpchar) IS
  'a char(n) as text, as the cast, for indexes under row-level security';

CREATE FUNCTION gte_small.has_words(pg_catalog.tsvector, pg_catalog.tsquery) RETURNS pg_catalog.bool
  AS 'ts_match_vq'
  LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION gte_small.has_words(pg_catalog.tsvector, pg_catalog.tsquery) IS
  'implementation of gte_small.@@@';

CREATE OPERATOR gte_small.@@@ (
  LEFTARG = pg_catalog.tsvector, RIGHTARG = pg_catalog.tsquery, FUNCTION = gte_small.has_words,
  RESTRICT = pg_catalog.tsmatchsel, JOIN = pg_catalog.tsmatchjoinsel);
COMMENT ON OPERATOR gte_small.@@@ (pg_catalog.tsvector, pg_catalog.tsquery) IS
  'as @@, for indexes under row-level security';

CREATE OPERATOR FAMILY gte_small.words_ops USING gin;
COMMENT ON OPERATOR FAMILY gte_small.words_ops USING gin IS 'gte_small.@@@ on tsvector';

CREATE OPERATOR CLASS gte_small.words_ops FOR TYPE pg_catalog.tsvector USING gin FAMILY gte_small.words_ops AS
  OPERATOR 1 gte_small.@@@ (pg_catalog.tsvector, pg_catalog.tsquery),
  FUNCTION 1 pg_catalog.gin_cmp_tslexeme(pg_catalog.text, pg_catalog.text),
  FUNCTION 2 pg_catalog.gin_extract_tsvector(pg_catalog.tsvector, pg_catalog.internal, pg_catalog.internal),
  FUNCTION 3 pg_catalog.gin_extract_tsquery(pg_catalog.tsvector, pg_catalog.internal, pg_catalog.int2,
    pg_catalog.internal, pg_catalog.internal, pg_catalog.internal, pg_catalog.internal),
  FUNCTION 4 pg_catalog.gin_tsquery_consistent(pg_catalog.internal, pg_catalog.int2, pg_catalog.tsvector,
    pg_catalog.int4, pg_catalog.internal, pg_catalog.internal, pg_catalog.internal, pg_catalog.internal),
  FUNCTION 5 pg_catalog.gin_cmp_prefix(pg_catalog.text, pg_catalog.text, pg_catalog.int2, pg_catalog.internal),
  FUNCTION 6 pg_catalog.gin_tsquery_triconsistent(pg_catalog.internal, pg_catalog.int2, pg_catalog.tsvector,
    pg_catalog.int4, pg_catalog.internal, pg_catalog.internal, pg_catalog.internal),
  STORAGE pg_catalog.text;
COMMENT ON OPERATOR CLASS gte_small.words_ops USING gin IS 'gte_small.@@@ on tsvector';
