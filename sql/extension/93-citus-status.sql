-- The note of a distributed table. Triggers run on the shards, so what a write notes stands on the shard's
-- trigger (see src/note.rs). The note on the coordinator tells what was known when search was enabled, and after
-- a backfill.

-- The notes on the shards' triggers, one statement for each node. Citus does not move a note with its shard: a shard that
-- has vectors and no note counts as one with vectors of unknown origin.
CREATE FUNCTION gte_small.notes_of_shards(target pg_catalog.regclass, embedding pg_catalog.name)
  RETURNS TABLE (place pg_catalog.text, success pg_catalog.bool, result pg_catalog.text)
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_column
DECLARE
  nodes record;
BEGIN
  SELECT array_agg(n.nodename) AS names, array_agg(n.nodeport) AS ports, array_agg(n.statement) AS statements
    INTO nodes
    FROM (SELECT d.nodename::text, d.nodeport,
                 'SELECT coalesce(pg_catalog.jsonb_agg(n.note), ''[]'') FROM (' || string_agg(format(
                   'SELECT coalesce((SELECT c.note FROM gte_small.embedding_columns(%1$L) c WHERE c.embedding OPERATOR(pg_catalog.=) %2$L LIMIT 1), '
                   'CASE WHEN EXISTS (SELECT 1 FROM %1$s t WHERE t.%2$I IS NOT NULL) THEN ''{"foreign": true}''::pg_catalog.jsonb END) AS note',
                   s.named, embedding), ' UNION ALL ') || ') n WHERE n.note IS NOT NULL' AS statement
            FROM pg_dist_shard h
            JOIN pg_dist_placement l ON l.shardid = h.shardid
            JOIN pg_dist_node d ON d.groupid = l.groupid AND d.noderole = 'primary'
            CROSS JOIN LATERAL (SELECT shard_name(h.logicalrelid, h.shardid, false)) AS s (named)
           WHERE h.logicalrelid = target
           GROUP BY d.nodename, d.nodeport) n;
  IF nodes.names IS NOT NULL THEN
    RETURN QUERY SELECT format('%s:%s', m.node_name, m.node_port), m.success, m.result
      FROM master_run_on_worker(nodes.names, nodes.ports, nodes.statements, true) m;
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.notes_of_shards(pg_catalog.regclass, pg_catalog.name) IS
  'part of embedding_status: the notes of a distributed table''s shards, by node';

-- The note of the column over all nodes: that of the coordinator with what the shards tell. It is "mixed" if
-- shards were written by another model. "unreachable" is a node that can't be asked: then nobody knows.
CREATE FUNCTION gte_small.note_of_all_nodes(
    target pg_catalog.regclass, embedding pg_catalog.name, note pg_catalog.jsonb)
  RETURNS pg_catalog.jsonb
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  models text[];
  node record;
  one jsonb;
BEGIN
  IF note IS NULL OR NOT gte_small.is_distributed(target) THEN
    RETURN note;
  END IF;
  FOR node IN SELECT * FROM gte_small.notes_of_shards(target, embedding) LOOP
    IF NOT node.success THEN
      note := note || jsonb_build_object('unreachable', node.place);
      CONTINUE;
    END IF;
    FOR one IN SELECT n FROM jsonb_array_elements(node.result::jsonb) n LOOP
      IF one -> 'mixed' = 'true' OR one #> '{force,mixed}' = 'true' THEN
        note := note || '{"mixed": true}';
      END IF;
      IF one ? 'force' THEN
        note := note || jsonb_build_object('force', one -> 'force');
      END IF;
      IF one -> 'foreign' = 'true' THEN
        note := note || '{"foreign": true}';
        IF one -> 'wrong' = 'true' THEN
          note := note || '{"wrong": true}';
        END IF;
      END IF;
      IF one ->> 'fingerprint' IS NOT NULL AND one -> 'empty' IS DISTINCT FROM 'true' THEN
        models := models || (one ->> 'fingerprint');
      END IF;
    END LOOP;
  END LOOP;
  models := ARRAY(SELECT DISTINCT m FROM unnest(models) m);
  IF cardinality(models) > 1 OR models[1] <> note ->> 'fingerprint' AND note -> 'empty' IS DISTINCT FROM 'true' THEN
    note := note || '{"mixed": true}';
  ELSIF cardinality(models) = 1 AND note -> 'empty' = 'true' THEN
    note := note - 'empty' || jsonb_build_object('fingerprint', models[1]);
  END IF;
  RETURN note;
END
$body$;
COMMENT ON FUNCTION gte_small.note_of_all_nodes(pg_catalog.regclass, pg_catalog.name, pg_catalog.jsonb) IS
  'part of embedding_status: what coordinator and shards note about an embedding column';

-- What is wrong with the nodes of a distributed table. NULL if nothing is, and for other tables.
CREATE FUNCTION gte_small.nodes_hint(target pg_catalog.regclass) RETURNS pg_catalog.text
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  IF NOT gte_small.is_distributed(target) THEN
    RETURN NULL;
  END IF;
  RETURN (SELECT 'the nodes do not have one model, and each embeds with its own: '
                 || string_agg(format('%s has %s', m.place, coalesce(left(m.fingerprint, 12), 'none')), ', ')
                 || '; set gte_small.model_path to the same model on all nodes, then CALL embed_backfill('
                 || quote_literal(target) || ', force => true)'
            FROM gte_small.models_of_nodes() m HAVING count(DISTINCT coalesce(m.fingerprint, '')) > 1);
END
$body$;
COMMENT ON FUNCTION gte_small.nodes_hint(pg_catalog.regclass) IS
  'part of embedding_status: nodes of a distributed table that have different models';

-- embed_verify() of a distributed table: each shard is compared on the server that has it. A sample is divided
-- among the shards.
CREATE FUNCTION gte_small.verify_shards(
    target pg_catalog.regclass, sample pg_catalog.int4, INOUT embedding pg_catalog.name, OUT checked pg_catalog.int8,
    OUT wrong pg_catalog.int8, OUT missing pg_catalog.int8, OUT examples pg_catalog.text[])
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  ours record;
  one record;
  waiting int8[];
  turn int8[];
  found_so jsonb;
  share int4;
BEGIN
  PERFORM gte_small.require_no_changes(target);
  FOR ours IN SELECT * FROM gte_small.backfill_columns(target, embedding) LOOP
    embedding := ours.embedding;
    checked := 0;
    wrong := 0;
    missing := 0;
    examples := '{}';
    waiting := gte_small.shards(target);
    share := ceil(sample::float8 / greatest(1, cardinality(waiting)));
    WHILE cardinality(waiting) > 0 LOOP
      turn := gte_small.shards_of_a_turn(waiting);
      waiting := gte_small.shards_left(waiting, turn);
      FOR one IN SELECT * FROM gte_small.run_on_shards(turn, 'verify', embedding, share) LOOP
        IF NOT one.success THEN
          RAISE EXCEPTION 'shard %: %', one.place, one.result
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'Nothing is known about the table as a whole.',
                  HINT = 'Mend it on that node, and call it again.';
        END IF;
        found_so := one.result::jsonb;
        checked := checked + (found_so ->> 'checked')::int8;
        wrong := wrong + (found_so ->> 'wrong')::int8;
        missing := missing + (found_so ->> 'missing')::int8;
        -- Of the shard and its server: the place of a row says nothing without them.
        examples := examples || ARRAY(SELECT format('%s: %s', one.place, e) FROM jsonb_array_elements_text(
                                        CASE jsonb_typeof(found_so -> 'examples') WHEN 'array' THEN found_so -> 'examples' ELSE '[]' END) e);
      END LOOP;
    END LOOP;
    examples := examples[1:5];
    -- The shards have settled their own notes.
    IF sample IS NULL AND wrong = 0 AND checked > missing AND NOT row_security_active(target) AND NOT current_setting('transaction_read_only')::bool
       AND NOT EXISTS (SELECT FROM gte_small.embedding_columns(target) c WHERE c.embedding = ours.embedding AND c.note ? 'force') THEN
      PERFORM gte_small.note_settle(target, embedding, true);
    ELSIF wrong > 0 AND NOT current_setting('transaction_read_only')::bool
       AND (has_any_column_privilege(target, 'INSERT') OR has_any_column_privilege(target, 'UPDATE')) THEN
      PERFORM gte_small.note_wrong(target, embedding);
    END IF;
    RETURN NEXT;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION gte_small.verify_shards(pg_catalog.regclass, pg_catalog.int4, pg_catalog.name) IS
  'part of embed_verify: compares the vectors of a distributed table with their texts, shard by shard';
