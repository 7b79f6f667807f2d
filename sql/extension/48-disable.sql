-- Semantic search on a table is undone.

CREATE FUNCTION disable_semantic_search(
    target pg_catalog.regclass, embedding pg_catalog.name DEFAULT 'embedding')
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
#variable_conflict use_variable
DECLARE
  relation pg_class;
  trigger_name name;
  former name;
  ours record;
  functions regprocedure[];
  indexes oid[];
  one regprocedure;
  made oid;
  is_clone boolean;
  undone boolean := false;
  of_chunks boolean;
  of_citus text[];
BEGIN
  SELECT * INTO relation FROM pg_class WHERE oid = target;
  IF relation.relowner IS NULL OR embedding IS NULL THEN
    RAISE EXCEPTION 'table and column must not be NULL'
      USING ERRCODE = 'null_value_not_allowed', DETAIL = 'Nothing was dropped.',
            HINT = 'Name a table, as in disable_semantic_search(''docs'').';
  ELSIF NOT pg_has_role(relation.relowner, 'USAGE') THEN
    RAISE EXCEPTION 'must be owner of table %', target
      USING ERRCODE = 'insufficient_privilege', DETAIL = 'Nothing was dropped.',
            HINT = format('Ask a member of role %s.', relation.relowner::regrole);
  END IF;
  embedding := gte_small.name_today(target, embedding);
  IF relation.relkind IN ('r', 'p') THEN
    -- What is read from here on stays until it is done.
    PERFORM gte_small.lock_for_change(target, 'SHARE UPDATE EXCLUSIVE', false);
  END IF;
  -- A column that was renamed: its trigger, functions and indexes have the earlier name.
  SELECT * INTO ours FROM gte_small.columns_of(target) c
   WHERE c.embedding = disable_semantic_search.embedding AND c.trigger_name = gte_small.trigger_name(c.named[1]);
  former := ours.named[1];
  trigger_name := coalesce(ours.trigger_name, gte_small.trigger_name(embedding));
  -- Also where the trigger was dropped before.
  functions := ARRAY(SELECT gte_small.made_functions(target, embedding) UNION SELECT gte_small.made_functions(target, former));
  -- Trigger and index of a table of chunks belong to the search of the documents.
  of_chunks := gte_small.is_chunks_table(target);
  IF of_chunks AND functions = '{}' THEN
    RAISE EXCEPTION 'table % holds the chunks of documents', target
      USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'Nothing was dropped.',
            HINT = 'Call disable_document_search() with the table of the documents.';
  END IF;
  indexes := ARRAY(SELECT i.indexrelid FROM gte_small.indexes(target, embedding) i WHERE NOT of_chunks OR i.method = 'gin'
                   UNION SELECT i.indexrelid FROM gte_small.indexes(target, former) i WHERE NOT of_chunks OR i.method = 'gin');
  -- A partition's functions are its own, its trigger is the parent's.
  is_clone := EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname = trigger_name AND t.tgparentid <> 0);
  IF ours.trigger_name IS NOT NULL AND NOT is_clone AND NOT of_chunks OR indexes <> '{}' THEN
    -- What DROP takes, for all of them at once.
    PERFORM gte_small.lock_for_change(target, 'ACCESS EXCLUSIVE', relation.relkind = 'p');
  END IF;
  FOREACH one IN ARRAY functions LOOP
    IF EXISTS (SELECT FROM pg_proc p WHERE p.oid = one AND NOT pg_has_role(p.proowner, 'USAGE')) THEN
      -- The table has changed its owner since, or another role made it. It must not keep the owner from disabling.
      RAISE NOTICE 'function % belongs to another role and was left', one USING HINT = 'Its owner or a superuser can drop it.';
      CONTINUE;
    END IF;
    PERFORM gte_small.drop_function(one);
    undone := true;
  END LOOP;
  FOREACH made IN ARRAY indexes LOOP
    PERFORM gte_small.drop_index(target, made, embedding);
    undone := true;
  END LOOP;
  IF ours.trigger_name IS NOT NULL AND NOT is_clone AND NOT of_chunks THEN
    of_citus := gte_small.citus_settings(target);
    EXECUTE format('DROP TRIGGER %I ON %s', trigger_name, target);
    PERFORM gte_small.citus_settings_back(of_citus);
    undone := true;
  END IF;
  IF NOT undone THEN
    RAISE NOTICE 'semantic search is not enabled on column "%" of table %, nothing to undo', embedding, target;
  END IF;
END
$body$;
COMMENT ON FUNCTION disable_semantic_search(pg_catalog.regclass, pg_catalog.name) IS
  'undoes enable_semantic_search: drops trigger, search functions and the indexes it made; the embeddings stay';
