-- Words that the model's vocabulary does not have.
--
-- Each of them is the same token. Texts of such words alone have one and the same vector, and a search for
-- one of them finds all of them. Measured with the vocabulary of bert-base-uncased, which MiniLM and
-- gte-small have: of the tokens of Latin, Greek, Cyrillic and Arabic texts less than 1 % are unknown, of
-- Devanagari 4 %, of Thai 50 %, of Chinese 61 %, of emoji and of hashes of more than 100 letters all.

-- COST 1000: as token_count.
CREATE FUNCTION gte_small.unknown_tokens(content pg_catalog.text, OUT unknown pg_catalog.int8, OUT tokens pg_catalog.int8)
  AS 'MODULE_PATHNAME', 'unknown_tokens_gte_small'
  LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION gte_small.unknown_tokens(pg_catalog.text) IS
  'part of embedding_status and embed_verify: of the tokens that the model reads of a text, those of unknown words, and all';

CREATE FUNCTION gte_small.unknown_percent(unknown pg_catalog.int8, tokens pg_catalog.int8) RETURNS pg_catalog.int4
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  AS $body$ SELECT CASE WHEN unknown > 0.2 * tokens THEN round(100.0 * unknown / tokens)::int END $body$;
COMMENT ON FUNCTION gte_small.unknown_percent(pg_catalog.int8, pg_catalog.int8) IS
  'part of embedding_status and embed_verify: the percentage of unknown words if it is above 20, otherwise NULL';

-- Reads the beginnings of 100 rows. NULL where there is nothing to say.
CREATE FUNCTION gte_small.unknown_hint(target pg_catalog.regclass, content pg_catalog.name[]) RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  percentage int;
BEGIN
  EXECUTE format('SELECT gte_small.unknown_percent(sum(u.unknown)::int8, sum(u.tokens)::int8)
                    FROM (SELECT %s FROM %s WHERE (%s) ORDER BY random() LIMIT 100) t
                   CROSS JOIN LATERAL gte_small.unknown_tokens(concat_ws(E''\n'', %s)) u',
                 (SELECT string_agg(format('t.%I', c), ', ') FROM unnest(content) AS s (c)),
                 gte_small.sample(target, 100), gte_small.has_text(content),
                 (SELECT string_agg(format('left(t.%I::text, 4096)', c), ', ' ORDER BY n) FROM unnest(content) WITH ORDINALITY AS s (c, n)))
    INTO percentage;
  RETURN CASE WHEN percentage IS NOT NULL THEN
    format('the model does not know %s %% of the words of the texts, and texts of unknown words have the same vector; '
                'a model of their language is chosen with: ALTER DATABASE %I SET gte_small.model_path = %L',
                percentage, current_database(), '/path/to/model') END;
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
  -- Bytes that are no text: embed_verify() names the error.
  RETURN NULL;
END
$body$;
COMMENT ON FUNCTION gte_small.unknown_hint(pg_catalog.regclass, pg_catalog.name[]) IS
  'part of embedding_status: says that the model knows too few words of the texts';
