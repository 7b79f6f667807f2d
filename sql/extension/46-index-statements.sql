-- The statements that make the indexes of a large table.
--
-- An index on a large table takes minutes, and enable_semantic_search() would lock out writers until then. CREATE
-- INDEX CONCURRENTLY does not, but no function can run it. So there the statements are printed.

-- Whether the indexes of a table are left to its owner: heap and TOAST have more than 128 MB. That is about 60,000
-- rows with their vectors, and half a minute for both indexes. Without an index searches are exact.
CREATE FUNCTION gte_small.is_large(target pg_catalog.regclass) RETURNS pg_catalog.bool
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT coalesce(sum(pg_table_size(c.oid)), 0) > 128 * 1024 * 1024
    FROM pg_class c
   WHERE c.relkind IN ('r', 'm') AND (c.oid = target OR c.oid IN (SELECT relid FROM pg_partition_tree(target)))
$body$;
COMMENT ON FUNCTION gte_small.is_large(pg_catalog.regclass) IS
  'part of enable_semantic_search: whether building an index on a table would take minutes';

-- The index of a table that matches a definition. On a partitioned table also one that waits for its partitions:
-- an interrupted run goes on where it was.
CREATE FUNCTION gte_small.matching_index(
    target pg_catalog.regclass, part pg_catalog.text, content pg_catalog.name[], embedding pg_catalog.name,
    language pg_catalog.regconfig, index_options pg_catalog.jsonb, frequent pg_catalog.int8[])
  RETURNS pg_catalog.oid
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT i.indexrelid
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam JOIN pg_opclass o ON o.oid = i.indclass[0]
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attnum > 0
   WHERE i.indrelid = target AND i.indnatts = 1 AND (i.indisvalid OR x.relkind = 'I')
     AND CASE part
           WHEN 'gin' THEN o.opcname = 'words_ops' AND o.opcnamespace = 'gte_small'::regnamespace AND i.indpred IS NULL
             AND pg_get_expr(i.indexprs, i.indrelid) = gte_small.words_shown(target, content, language)
           WHEN 'second' THEN m.amname = 'hnsw' AND o.opcname = 'vector_l2_ops' AND a.attname = embedding
             AND substring(pg_get_expr(i.indpred, i.indrelid) FROM $re$'(\{[-0-9,]+\})'$re$)::int8[] @> frequent
           ELSE m.amname = 'hnsw' AND i.indpred IS NULL AND coalesce(x.reloptions, '{}') @> gte_small.storage_options(index_options)
             AND CASE WHEN index_options ->> 'type' = 'halfvec' THEN o.opcname = 'halfvec_ip_ops' AND pg_get_expr(i.indexprs, i.indrelid)
                        IN (format('(%I)::%s.halfvec(384)', embedding, gte_small.vector_schema()), format('(%I)::halfvec(384)', embedding))
                      ELSE o.opcname = 'vector_ip_ops' AND a.attname = embedding END END
   ORDER BY i.indisvalid DESC, i.indexrelid LIMIT 1
$body$;
COMMENT ON FUNCTION gte_small.matching_index(pg_catalog.regclass, pg_catalog.text, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig, pg_catalog.jsonb, pg_catalog.int8[]) IS
  'part of enable_semantic_search: the index of a table, or partition, that matches a definition';

-- A name for an index that no relation of the table's schema has, and that is not among "taken".
CREATE FUNCTION gte_small.index_name(target pg_catalog.regclass, suffix pg_catalog.text, taken pg_catalog.text[]) RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  relation record;
  base text;
  ending text;
  n int := 0;
BEGIN
  SELECT c.relname::text AS name, c.relnamespace AS namespace INTO relation FROM pg_class c WHERE c.oid = target;
  LOOP
    ending := suffix || CASE n WHEN 0 THEN '' ELSE n::text END;
    base := relation.name;
    WHILE octet_length(base || ending) > 63 LOOP
      base := left(base, -1);
    END LOOP;
    EXIT WHEN base || ending <> ALL (taken)
      AND NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = relation.namespace AND c.relname = base || ending);
    n := n + 1;
  END LOOP;
  RETURN base || ending;
END
$body$;
COMMENT ON FUNCTION gte_small.index_name(pg_catalog.regclass, pg_catalog.text, pg_catalog.text[]) IS
  'part of enable_semantic_search: a free name for an index';

-- The statements that make one index. On a partitioned table each partition gets its own without a lock, and the
-- indexes of the partitioned tables, which have no rows, take them over.
CREATE FUNCTION gte_small.statements_to_make(
    target pg_catalog.regclass, part pg_catalog.text, content pg_catalog.name[], embedding pg_catalog.name,
    language pg_catalog.regconfig, index_options pg_catalog.jsonb, frequent pg_catalog.int8[])
  RETURNS SETOF pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  suffix CONSTANT text := CASE part WHEN 'gin' THEN '_words_idx' WHEN 'second' THEN '_second_idx' ELSE '_embedding_idx' END;
  one record;
  -- The tables from the root on, with their indexes: names with the schema, and whether they exist.
  tables oid[] := '{}';
  indexes text[] := '{}';
  there bool[] := '{}';
  taken text[] := '{}';
  existing oid;
  called text;
  tbl text;
  n int;
  above int;
  everywhere bool := true;
BEGIN
  FOR one IN
    SELECT c.oid, c.relkind, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_partition_tree(target) t ON t.relid = c.oid
     WHERE c.oid = target OR t.relid IS NOT NULL
     ORDER BY coalesce(t.level, 0), c.oid
  LOOP
    IF one.relkind = 'f' THEN
      everywhere := false;
      CONTINUE;
    END IF;
    existing := gte_small.matching_index(one.oid, part, content, embedding, language, index_options, frequent);
    IF existing IS NULL THEN
      called := gte_small.index_name(one.oid, suffix, taken);
      taken := taken || called;
    ELSE
      called := (SELECT x.relname FROM pg_class x WHERE x.oid = existing);
    END IF;
    tables := tables || one.oid;
    indexes := indexes || format('%I.%I', one.nspname, called);
    there := there || (existing IS NOT NULL);
    IF one.relkind <> 'p' AND existing IS NULL THEN
      RETURN NEXT format('CREATE INDEX CONCURRENTLY %I ON %I.%I USING %s;', called, one.nspname, one.relname,
                         gte_small.index_definition(one.oid, part, content, embedding, language, index_options, frequent));
    END IF;
  END LOOP;

  IF NOT everywhere THEN
    -- A foreign table can't have an index. This statement passes over it, and takes those of the others over.
    RETURN NEXT format('CREATE INDEX %I ON %s USING %s;', (parse_ident(indexes[1]))[2], (SELECT q.tbl FROM gte_small.qualified(target) q),
                       gte_small.index_definition(target, part, content, embedding, language, index_options, frequent));
  ELSE
    FOR n IN REVERSE cardinality(tables) .. 1 LOOP
      IF EXISTS (SELECT FROM pg_class c WHERE c.oid = tables[n] AND c.relkind = 'p') THEN
        IF NOT there[n] THEN
          SELECT q.tbl INTO tbl FROM gte_small.qualified(tables[n]) q;
          RETURN NEXT format('CREATE INDEX %I ON ONLY %s USING %s;', (parse_ident(indexes[n]))[2], tbl,
                             gte_small.index_definition(tables[n], part, content, embedding, language, index_options, frequent));
        END IF;
        FOR above IN 1 .. cardinality(tables) LOOP
          CONTINUE WHEN NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = tables[n] AND h.inhrelid = tables[above])
            OR there[n] AND there[above] AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = to_regclass(indexes[n]) AND h.inhrelid = to_regclass(indexes[above]));
          RETURN NEXT format('ALTER INDEX %s ATTACH PARTITION %s;', indexes[n], indexes[above]);
        END LOOP;
      END IF;
    END LOOP;
  END IF;
  -- The comment by which it is known as one of the search's.
  RETURN NEXT format('COMMENT ON INDEX %s IS %L;', indexes[1], gte_small.mark(embedding));
END
$body$;
COMMENT ON FUNCTION gte_small.statements_to_make(pg_catalog.regclass, pg_catalog.text, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig, pg_catalog.jsonb, pg_catalog.int8[]) IS
  'part of enable_semantic_search: the statements that make one index without locking out writers';

-- The statements of a plan, in its order.
CREATE FUNCTION gte_small.plan_statements(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name, language pg_catalog.regconfig,
    index_options pg_catalog.jsonb, plan gte_small.index_step[])
  RETURNS SETOF pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  one gte_small.index_step;
BEGIN
  FOREACH one IN ARRAY plan LOOP
    IF one.step = 'make' THEN
      RETURN QUERY SELECT gte_small.statements_to_make(target, one.part, content, embedding, language, index_options, one.frequent);
    ELSIF gte_small.index_heir(target, one.indexrelid, embedding) IS NULL THEN
      RETURN NEXT (SELECT format('DROP INDEX %s%I.%I;', CASE c.relkind WHEN 'I' THEN '' ELSE 'CONCURRENTLY ' END, n.nspname, c.relname)
                     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = one.indexrelid);
    END IF;
  END LOOP;
  -- The functions say which type of index they use.
  IF index_options ->> 'type' = 'halfvec' AND ROW('make', 'hnsw', NULL, NULL)::gte_small.index_step = ANY (plan) THEN
    RETURN NEXT format('SELECT %s.enable_semantic_search(%L, %L, %L);', gte_small.extension_schema(),
                       (SELECT q.tbl FROM gte_small.qualified(target) q), content, embedding);
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.plan_statements(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig, pg_catalog.jsonb, gte_small.index_step[]) IS
  'part of enable_semantic_search: the statements that carry out a plan without locking out writers';

-- For embedding_status: what is missing of a column's indexes.
CREATE FUNCTION gte_small.index_statements(target pg_catalog.regclass, embedding pg_catalog.name) RETURNS SETOF pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  ours record;
  language regconfig;
  options jsonb;
BEGIN
  SELECT c.* INTO ours FROM gte_small.embedding_columns(target) c
   WHERE c.embedding = index_statements.embedding ORDER BY c.trigger_name DESC LIMIT 1;
  SELECT t.oid INTO language FROM pg_ts_config t WHERE gte_small.config(t.oid) = ours.note ->> 'text_search';
  options := coalesce(ours.note -> 'index_options', '{}');
  -- Without search functions there is no hybrid search.
  RETURN QUERY SELECT gte_small.plan_statements(target, ours.content, embedding, coalesce(language, 'simple'), options,
    ARRAY(SELECT p FROM unnest(gte_small.index_plan(target, ours.content, embedding, coalesce(language, 'simple'), options)) p
           WHERE p.part <> 'gin' OR language IS NOT NULL AND NOT gte_small.is_chunks_table(target)))
   WHERE ours.embedding IS NOT NULL;
END
$body$;
COMMENT ON FUNCTION gte_small.index_statements(pg_catalog.regclass, pg_catalog.name) IS
  'part of embedding_status: the statements that make the missing indexes of a column without locking out writers';
