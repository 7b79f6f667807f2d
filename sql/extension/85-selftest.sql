-- The kernels of this CPU against stock candle.

-- Not for everyone: a call uses a core for a second and up to 200 MB.
CREATE FUNCTION embed_selftest(
    OUT kernels pg_catalog.text,
    OUT "precision" pg_catalog.text,
    OUT texts pg_catalog.int4,
    OUT least_cosine pg_catalog.float8,
    OUT max_abs pg_catalog.float8)
  AS 'MODULE_PATHNAME', 'embed_selftest_gte_small'
  LANGUAGE c VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION embed_selftest() IS
  'compares the kernels that this session embeds with to stock candle, on texts in the library: least cosine of two vectors, largest difference of a component';
REVOKE EXECUTE ON FUNCTION embed_selftest() FROM PUBLIC;
