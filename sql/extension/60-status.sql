-- The state of a table's embedding columns.

-- The condition for rows t that are older than the first vector that was written here. Such vectors came while the
-- trigger was off. In another cluster the note says nothing, and after 1.5 billion transactions xmin says nothing.
CREATE FUNCTION gte_small.before_the_first(note pg_catalog.jsonb) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT CASE WHEN note #>> '{began,cluster}' = split_part(gte_small.table_place('pg_class'::regclass), '/', 1)
                   AND note #>> '{began,xid}' ~ '^\d{1,18}$'
                   AND pg_snapshot_xmax(pg_current_snapshot())::text::numeric - (note #>> '{began,xid}')::numeric BETWEEN 0 AND 1500000000
              THEN format('age(t.xmin) > age(%L::xid)', (note #>> '{began,xid}')::numeric % 4294967296)
              ELSE 'false' END
$body$;
COMMENT ON FUNCTION gte_small.before_the_first(pg_catalog.jsonb) IS
  'part of embedding_status: SQL condition for rows that are older than the first vector of a column';

CREATE FUNCTION gte_small.has_earlier_vectors(target pg_catalog.regclass, embedding pg_catalog.name, note pg_catalog.jsonb)
  RETURNS pg_catalog.bool
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  condition text := gte_small.before_the_first(note);
  found_one bool := false;
BEGIN
  IF condition <> 'false' AND has_table_privilege(target, 'SELECT') THEN
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s AS t WHERE t.%I IS NOT NULL AND %s)',
                   (SELECT q.rows_of FROM gte_small.qualified(target) q), embedding, condition) INTO found_one;
  END IF;
  RETURN found_one;
END
$body$;
COMMENT ON FUNCTION gte_small.has_earlier_vectors(pg_catalog.regclass, pg_catalog.name, pg_catalog.jsonb) IS
  'part of embed_verify: whether a column has vectors from before the first that was written here';

CREATE FUNCTION embedding_status(
    target pg_catalog.regclass,
    OUT embedding pg_catalog.name,
    OUT rows pg_catalog.int8,
    OUT embedded pg_catalog.int8,
    OUT missing pg_catalog.int8,
    OUT stale pg_catalog.int8,
    OUT state pg_catalog.text,
    OUT filled_with pg_catalog.text,
    OUT loaded pg_catalog.text,
    OUT index_present pg_catalog.bool,
    OUT trigger_enabled pg_catalog.bool,
    OUT hints pg_catalog.text[])
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  kind "char" := (SELECT c.relkind FROM pg_class c WHERE c.oid = target);
  ours record;
  here text := quote_literal(target);
  only_named text;
  functions_wrong text;
  gone name[];
  not_unit int8;
  earlier int8;
  -- Of a table of Citus.
  of_nodes text := gte_small.nodes_hint(target);
BEGIN
  -- SELECT ... FROM pg_class, embedding_status(oid) passes views as well, so they are no error.
  IF kind IS NULL THEN
    PERFORM gte_small.check_readable(target, 'embedding_status');
  ELSIF kind NOT IN ('r', 'p') THEN
    RAISE NOTICE '% is not a table', target
      USING DETAIL = 'A trigger fills an embedding column, and only tables have such columns.',
            HINT = 'Name the table whose rows it shows.';
    RETURN;
  END IF;
  BEGIN
    loaded := (SELECT m.fingerprint FROM gte_small.embed_model() m);
  EXCEPTION WHEN OTHERS THEN
    -- No model, or a broken one: embed_model() says what is wrong, to those who may know.
  END;
  FOR ours IN
    SELECT DISTINCT ON (c.embedding) c.* FROM gte_small.embedding_columns(target) c
     ORDER BY c.embedding, c.trigger_name DESC
  LOOP
    embedding := ours.embedding;
    ours.note := gte_small.note_of_all_nodes(target, embedding, ours.note);
    filled_with := ours.note ->> 'fingerprint';
    -- The triggers of shards know the columns by the names of then: they don't follow a rename.
    gone := gte_small.columns_gone(target, CASE WHEN gte_small.is_distributed(target)
      THEN (SELECT c.named FROM gte_small.columns_of(target) c WHERE c.trigger_name = ours.trigger_name LIMIT 1) ELSE embedding || ours.content END);
    IF gone IS NOT NULL THEN
      rows := NULL; embedded := NULL; missing := NULL; stale := NULL;
      state := 'broken';
      index_present := false;
      trigger_enabled := ours.trigger_enabled;
      hints := gte_small.gone_hints(target, embedding, ours.content, gone, ours.trigger_name);
      RETURN NEXT;
      CONTINUE;
    END IF;
    PERFORM gte_small.check_readable(target, 'embedding_status', embedding || ours.content);
    EXECUTE format('SELECT count(*), count(t.%1$I), count(*) FILTER (WHERE t.%1$I IS NULL AND (%2$s)), '
                   '       count(*) FILTER (WHERE NOT gte_small.is_unit(t.%1$I)), count(t.%1$I) FILTER (WHERE %5$s) FROM %3$s %4$s AS t',
                   embedding, gte_small.has_text(ours.content), CASE kind WHEN 'p' THEN '' ELSE 'ONLY' END, target,
                   -- With privileges on columns only, xmin can't be read.
                   CASE WHEN has_table_privilege(target, 'SELECT') THEN gte_small.before_the_first(ours.note) ELSE 'false' END)
       INTO rows, embedded, missing, not_unit, earlier;
    state := CASE
      WHEN ours.note ? 'force' THEN 're-embedding'
      WHEN embedded = 0 THEN 'empty'
      WHEN ours.note -> 'outdated' = 'true' THEN 'stale'
      WHEN ours.note -> 'mixed' = 'true' THEN 'mixed'
      -- "empty": vectors came while the trigger was off, as from a subscription.
      WHEN filled_with IS NULL OR loaded IS NULL OR ours.note -> 'empty' = 'true' THEN 'unknown'
      WHEN filled_with <> loaded THEN 'stale'
      WHEN ours.note -> 'foreign' = 'true' OR not_unit > 0 OR earlier > 0 OR of_nodes IS NOT NULL OR ours.note ? 'unreachable' THEN 'unknown'
      ELSE 'current' END;
    stale := CASE WHEN state IN ('stale', 'mixed', 're-embedding') THEN embedded
                  WHEN state <> 'unknown' THEN 0 END;
    -- Of a partitioned table, an index on the whole of it; a part of the rows is not enough.
    index_present := EXISTS (SELECT FROM gte_small.vector_indexes(target, embedding));
    -- A partition's trigger can be disabled alone.
    trigger_enabled := ours.trigger_enabled AND NOT EXISTS (
      WITH RECURSIVE clones (oid, enabled) AS (
        SELECT t.oid, t.tgenabled FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname = ours.trigger_name
         UNION ALL
        SELECT t.oid, t.tgenabled FROM clones c JOIN pg_trigger t ON t.tgparentid = c.oid)
      SELECT FROM clones c WHERE c.enabled NOT IN ('O', 'A'));

    only_named := CASE WHEN (SELECT count(DISTINCT c.embedding) FROM gte_small.embedding_columns(target) c) > 1
                       THEN format(', embedding => %L', embedding) ELSE '' END;
    functions_wrong := gte_small.functions_wrong(target, ours.content, embedding, ours.note);
    hints := array_remove(ARRAY[
      of_nodes,
      CASE WHEN ours.note ? 'unreachable' THEN
        format('node %s can''t be asked which model wrote its rows', ours.note ->> 'unreachable') END,
      CASE WHEN row_security_active(target) THEN
        format('row-level security applies, and only the rows that %I may see were counted', current_user) END,
      CASE WHEN loaded IS NULL THEN 'no model could be loaded: SELECT * FROM embed_model() says why' END,
      CASE WHEN NOT trigger_enabled THEN
        format('new rows are not embedded: ALTER TABLE %s ENABLE TRIGGER %I', target, ours.trigger_name) END,
      CASE WHEN not_unit > 0 THEN
        format('%s vectors are not of unit length, and searches rank them wrongly: CALL embed_backfill(%s, force => true%s)',
               not_unit, here, only_named)
           WHEN state IN ('stale', 'mixed', 're-embedding') THEN
        format('%s: CALL embed_backfill(%s, force => true%s)',
               CASE state WHEN 'stale' THEN format('the embeddings are of %s',
                 CASE WHEN ours.note -> 'outdated' = 'true' THEN 'other columns' ELSE 'another model' END)
                          WHEN 'mixed' THEN 'the embeddings are of several models'
                          ELSE 'all rows are being embedded again; if that was interrupted' END,
               here, only_named)
           WHEN state = 'unknown' AND loaded IS NOT NULL AND ours.note IS NULL THEN
        format('nobody noted which model the embeddings are of; if it was another: CALL embed_backfill(%s, force => true%s)',
               here, only_named)
           WHEN state = 'unknown' AND loaded IS NOT NULL AND ours.note -> 'foreign' = 'true' AND ours.note -> 'wrong' = 'true' THEN
        format('embed_verify found vectors that are not of their texts: CALL embed_backfill(%s, force => true%s)', here, only_named)
           WHEN state = 'unknown' AND loaded IS NOT NULL THEN
        format('%s; to compare all of them with their texts: SELECT * FROM embed_verify(%s, NULL%s)',
               CASE WHEN earlier > 0 THEN format('%s vectors are older than the first that the trigger made, and nobody noted whose they are', earlier)
                    WHEN ours.note -> 'foreign' = 'true' THEN 'vectors came along with rows, and nobody noted whose they are'
                    ELSE 'nobody noted which model the embeddings are of' END, here, only_named) END,
      -- After re-embedding nothing is missing.
      CASE WHEN missing > 0 AND state NOT IN ('stale', 'mixed', 're-embedding') THEN
        format('%s rows have no embedding: CALL embed_backfill(%s%s)', missing, here, only_named) END,
      CASE WHEN loaded IS NOT NULL AND rows > 0 THEN gte_small.unknown_hint(target, ours.content) END,
      CASE WHEN index_present THEN gte_small.crowded_hint(target, embedding, ours.content) END,
      functions_wrong || format(': SELECT enable_semantic_search(%s, %L, %L%s)', here, ours.content, embedding,
                  CASE WHEN index_present THEN '' ELSE ', with_index => false' END),
      CASE WHEN NOT index_present THEN gte_small.index_hint(target, embedding) END,
      CASE WHEN functions_wrong IS NULL THEN gte_small.words_hint(target, embedding, ours.content, ours.note) END,
      gte_small.invalid_index_hint(target, embedding),
      gte_small.dead_rows_hint(target, embedding),
      gte_small.children_hint(target, embedding, ours.content),
      gte_small.pgvector_hint(target, embedding)
    ], NULL);
    RETURN NEXT;
  END LOOP;

  FOR ours IN SELECT * FROM gte_small.columns_without_trigger(target) LOOP
    embedding := ours.embedding;
    PERFORM gte_small.check_readable(target, 'embedding_status', ARRAY[embedding]);
    EXECUTE format('SELECT count(*), count(t.%I) FROM %s %s AS t', embedding, CASE kind WHEN 'p' THEN '' ELSE 'ONLY' END, target)
       INTO rows, embedded;
    missing := NULL;
    stale := NULL;
    state := 'no trigger';
    filled_with := NULL;
    index_present := EXISTS (SELECT FROM gte_small.vector_indexes(target, embedding));
    trigger_enabled := false;
    hints := ARRAY[format('no trigger fills column %I, and new and changed rows are not embedded: ', embedding) ||
      CASE WHEN gte_small.is_chunks_table(target) THEN 'SELECT refresh_semantic_search()'
           ELSE format('SELECT enable_semantic_search(%L, %L, %L%s)', coalesce(pg_partition_root(target), target),
                       coalesce(ours.content, '{content}'), embedding, CASE WHEN index_present THEN '' ELSE ', with_index => false' END) END];
    RETURN NEXT;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION embedding_status(pg_catalog.regclass) IS
  'for each embedding column of a table: rows with and without embedding, whose model they are of, index, trigger, and what to do';
