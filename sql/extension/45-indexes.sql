-- The indexes that enable_semantic_search creates.

-- An index that was created for an embedding column is recognized by its comment, not by its name. An
-- index that the user created has no such comment, and disable_semantic_search keeps it.
CREATE FUNCTION gte_small.indexes(
    target pg_catalog.regclass, embedding pg_catalog.name,
    OUT indexrelid pg_catalog.oid, OUT method pg_catalog.name)
  RETURNS SETOF pg_catalog.record
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT i.indexrelid, m.amname
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
   WHERE i.indrelid = target AND obj_description(i.indexrelid, 'pg_class') = 'gte-small: for ' || quote_ident(embedding)
$body$;
COMMENT ON FUNCTION gte_small.indexes(pg_catalog.regclass, pg_catalog.name) IS
  'part of enable_semantic_search: the indexes it made for an embedding column';

-- The qualified name of a text-search configuration, which does not depend on the search_path.
CREATE FUNCTION gte_small.config(language pg_catalog.regconfig) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT format('%I.%I', n.nspname, t.cfgname) FROM pg_ts_config t JOIN pg_namespace n ON n.oid = t.cfgnamespace
   WHERE t.oid = language
$body$;
COMMENT ON FUNCTION gte_small.config(pg_catalog.regconfig) IS
  'part of enable_semantic_search: the qualified name of a text-search configuration';

-- The expression for the words of a row, or with of_e of a row e. The index and the search use the same expression. It reads
-- at most 100,000 characters: a tsvector is limited to 1 MB, and a longer row would be refused.
CREATE FUNCTION gte_small.words_expression(
    content pg_catalog.name[], language pg_catalog.regconfig, of_e pg_catalog.bool DEFAULT false)
  RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT format('pg_catalog.to_tsvector(%L::pg_catalog.regconfig, pg_catalog."left"(%s, 100000))', gte_small.config(language),
                string_agg(format('coalesce(%s%I::pg_catalog.text, %L)', CASE WHEN of_e THEN 'e.' END, c, ''),
                           $sep$ operator(pg_catalog.||) E'\n' operator(pg_catalog.||) $sep$ ORDER BY n))
    FROM unnest(content) WITH ORDINALITY AS u (c, n)
$body$;
COMMENT ON FUNCTION gte_small.words_expression(pg_catalog.name[], pg_catalog.regconfig, pg_catalog.bool) IS
  'part of enable_semantic_search: the expression of the full-text index';

-- The same expression as the catalogue shows it. With it an index is recognized that has the
-- expression, also one that the user created.
CREATE FUNCTION gte_small.words_shown(
    target pg_catalog.regclass, content pg_catalog.name[], language pg_catalog.regconfig)
  RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  words text;
  one text;
BEGIN
  FOR one IN SELECT format(CASE WHEN a.atttypid = 'text'::regtype THEN 'COALESCE(%I, %L::text)'
                                ELSE 'COALESCE((%I)::text, %L::text)' END, a.attname, '')
               FROM unnest(content) WITH ORDINALITY AS u (c, n)
               JOIN pg_attribute a ON a.attrelid = target AND a.attname = c ORDER BY n LOOP
    words := CASE WHEN words IS NULL THEN one ELSE format('((%s || %L::text) || %s)', words, chr(10), one) END;
  END LOOP;
  RETURN format('to_tsvector(%L::regconfig, "left"(%s, 100000))', language, words);
END
$body$;
COMMENT ON FUNCTION gte_small.words_shown(pg_catalog.regclass, pg_catalog.name[], pg_catalog.regconfig) IS
  'part of enable_semantic_search: the expression of the full-text index as the catalogue shows it';

CREATE FUNCTION gte_small.make_indexes(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name, language pg_catalog.regconfig)
  RETURNS pg_catalog.text[]
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  made text[] := '{}';
  shown text := gte_small.words_shown(target, content, language);
  outdated oid;
BEGIN
  -- Inner product: on vectors of unit length it orders as the cosine does, and costs the least.
  IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_opclass c ON c.oid = i.indclass[0] JOIN pg_am m ON m.oid = c.opcmethod
                   JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                  WHERE i.indrelid = target AND a.attname = embedding AND i.indisvalid AND i.indpred IS NULL
                    AND c.opcname = 'vector_ip_ops' AND m.amname = 'hnsw') THEN
    made := made || gte_small.make_index(target, 'hnsw', content, embedding, language);
  END IF;

  -- Of other text, or in another language.
  FOR outdated IN SELECT i.indexrelid FROM gte_small.indexes(target, embedding) i
                    JOIN pg_index x ON x.indexrelid = i.indexrelid
                   WHERE i.method = 'gin' AND pg_get_expr(x.indexprs, x.indrelid) <> shown LOOP
    PERFORM gte_small.drop_index(target, outdated, embedding);
  END LOOP;
  IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
                  WHERE i.indrelid = target AND m.amname = 'gin' AND i.indisvalid AND i.indpred IS NULL
                    AND i.indnatts = 1 AND pg_get_expr(i.indexprs, i.indrelid) = shown) THEN
    made := made || gte_small.make_index(target, 'gin', content, embedding, language);
  END IF;
  RETURN made;
END
$body$;
COMMENT ON FUNCTION gte_small.make_indexes(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig) IS
  'part of enable_semantic_search: makes the HNSW and the full-text index where they are missing, and names those it made';

-- PostgreSQL chooses the name of the index, because a fixed name could be taken.
CREATE FUNCTION gte_small.make_index(
    target pg_catalog.regclass, method pg_catalog.name, content pg_catalog.name[], embedding pg_catalog.name,
    language pg_catalog.regconfig)
  RETURNS pg_catalog.text
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  before oid[] := ARRAY(SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = target);
  made oid;
BEGIN
  EXECUTE format('CREATE INDEX ON %s USING ', target) ||
    CASE method WHEN 'hnsw' THEN format('hnsw (%I %s.vector_ip_ops)', embedding, gte_small.vector_schema())
                WHEN 'gin' THEN format('gin ((%s))', gte_small.words_expression(content, language)) END;
  SELECT i.indexrelid INTO STRICT made FROM pg_index i WHERE i.indrelid = target AND i.indexrelid <> ALL (before);
  EXECUTE format('COMMENT ON INDEX %s IS %L', made::regclass, 'gte-small: for ' || quote_ident(embedding));
  RETURN format('index %s', made::regclass);
END
$body$;
COMMENT ON FUNCTION gte_small.make_index(pg_catalog.regclass, pg_catalog.name, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig) IS
  'part of enable_semantic_search: makes the HNSW or the full-text index of an embedding column';

-- Drops an index that was created for an embedding column. A full-text index is kept if another
-- embedding column has the same text; its comment then names that column.
CREATE FUNCTION gte_small.drop_index(target pg_catalog.regclass, dropped pg_catalog.oid, embedding pg_catalog.name)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  heir name;
BEGIN
  SELECT c.embedding INTO heir
    FROM gte_small.embedding_columns(target) c
    JOIN pg_ts_config t ON gte_small.config(t.oid) = c.note ->> 'text_search'
    JOIN pg_index i ON i.indexrelid = dropped
   WHERE c.embedding <> embedding
     AND pg_get_expr(i.indexprs, i.indrelid) = gte_small.words_shown(target, c.content, t.oid)
   LIMIT 1;
  IF heir IS NULL THEN
    EXECUTE format('DROP INDEX %s', dropped::regclass);
  ELSE
    EXECUTE format('COMMENT ON INDEX %s IS %L', dropped::regclass, 'gte-small: for ' || quote_ident(heir));
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.drop_index(pg_catalog.regclass, pg_catalog.oid, pg_catalog.name) IS
  'part of enable_semantic_search: drops an index it made, or leaves it to another embedding column';

