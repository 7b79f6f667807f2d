-- Semantic search on a table: enable_semantic_search() and disable_semantic_search().

-- Refuses a column that is missing or no text. Returns how it is generated, '' if it is not.
CREATE FUNCTION gte_small.check_text_column(target pg_catalog.regclass, source pg_catalog.name) RETURNS pg_catalog."char"
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  kind record;
BEGIN
  WITH RECURSIVE base (oid, basetype) AS (
    SELECT t.oid, t.typbasetype FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = target AND a.attname = source AND NOT a.attisdropped AND a.attnum > 0
    UNION ALL
    SELECT t.oid, t.typbasetype FROM base JOIN pg_type t ON t.oid = base.basetype)
  SELECT format_type(a.atttypid, a.atttypmod) AS name, a.attgenerated,
         b.oid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'name'::regtype)
           OR EXISTS (SELECT FROM pg_cast WHERE castsource = b.oid AND casttarget = 'text'::regtype AND castmethod = 'b') AS is_text
    INTO kind
    FROM pg_attribute a, base b
   WHERE a.attrelid = target AND a.attname = source AND NOT a.attisdropped AND a.attnum > 0 AND b.basetype = 0;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'column "%" of table % does not exist', source, target
      USING ERRCODE = 'undefined_column', DETAIL = 'Nothing was made.',
            HINT = 'Name the text columns of the table, as in ''title, body''.';
  ELSIF NOT kind.is_text THEN
    RAISE EXCEPTION 'column "%" of table % has type %', source, target, kind.name
      USING ERRCODE = 'datatype_mismatch', DETAIL = 'Only text can be embedded; nothing was made.',
            HINT = 'Name a column of type text, or keep the value as text in a column of its own.';
  END IF;
  RETURN kind.attgenerated;
END
$body$;
COMMENT ON FUNCTION gte_small.check_text_column(pg_catalog.regclass, pg_catalog.name) IS
  'part of enable_semantic_search and others: refuses a column that is missing or no text';

-- Checks the arguments of enable_semantic_search, before it creates anything.
CREATE FUNCTION gte_small.check_target(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  relation pg_class;
  needed text;
  source name;
  kind record;
BEGIN
  IF target IS NULL OR content IS NULL OR embedding IS NULL THEN
    RAISE EXCEPTION 'table and columns must not be NULL'
      USING ERRCODE = 'null_value_not_allowed', DETAIL = 'Nothing was made.',
            HINT = 'Name a table, as in enable_semantic_search(''docs''), and its columns.';
  END IF;
  SELECT * INTO relation FROM pg_class WHERE oid = target;
  IF relation.relkind IS NULL THEN
    RAISE EXCEPTION 'no relation has the OID %', target::oid
      USING ERRCODE = 'undefined_table', DETAIL = 'Nothing was made.', HINT = 'Name the table.';
  ELSIF relation.relkind NOT IN ('r', 'p') THEN
    RAISE EXCEPTION '% is not a table', target
      USING ERRCODE = 'wrong_object_type',
            DETAIL = 'A trigger that fills a column and an index need a table; nothing was made.',
            HINT = 'Enable the search on the table behind it, or on a table that holds a copy of the text.';
  ELSIF pg_is_other_temp_schema(relation.relnamespace) THEN
    RAISE EXCEPTION '% is a temporary table of another session', target
      USING ERRCODE = 'wrong_object_type', DETAIL = 'Nothing was made.', HINT = 'Only that session can use it.';
  ELSIF relation.relnamespace IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace, 'information_schema'::regnamespace) THEN
    RAISE EXCEPTION '% is a system table', target
      USING ERRCODE = 'wrong_object_type', DETAIL = 'Nothing was made.', HINT = 'Use a table of your own.';
  ELSIF NOT pg_has_role(relation.relowner, 'USAGE') THEN
    RAISE EXCEPTION 'must be owner of table %', target
      USING ERRCODE = 'insufficient_privilege', DETAIL = 'Nothing was made.',
            HINT = format('Ask a member of role %s.', relation.relowner::regrole);
  ELSIF NOT has_schema_privilege(relation.relnamespace, 'CREATE') THEN
    RAISE EXCEPTION 'permission denied for schema %', relation.relnamespace::regnamespace
      USING ERRCODE = 'insufficient_privilege',
            DETAIL = 'The search functions stand in the table''s schema; nothing was made.',
            HINT = format('GRANT CREATE ON SCHEMA %s TO %I;', relation.relnamespace::regnamespace, current_user);
  END IF;
  FOREACH needed IN ARRAY ARRAY[gte_small.vector_schema(), gte_small.extension_schema()] LOOP
    IF NOT has_schema_privilege(needed::regnamespace, 'USAGE') THEN
      RAISE EXCEPTION 'permission denied for schema %', needed
        USING ERRCODE = 'insufficient_privilege', DETAIL = 'The type vector or the function embed_trigger() stands in it; nothing was made.',
              HINT = format('GRANT USAGE ON SCHEMA %s TO %I;', needed, current_user);
    END IF;
  END LOOP;
  IF NOT has_function_privilege(gte_small.extension_schema() || '.embed_trigger()', 'EXECUTE') THEN
    RAISE EXCEPTION 'permission denied for function embed_trigger()'
      USING ERRCODE = 'insufficient_privilege', DETAIL = 'A trigger with this function fills the embedding column; nothing was made.',
            HINT = format('GRANT EXECUTE ON FUNCTION %s.embed_trigger() TO %I;', gte_small.extension_schema(), current_user);
  END IF;
  IF gte_small.has_document_search(target) THEN
    RAISE EXCEPTION 'table % is searched by its chunks', target
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'query_... is the name of that search; nothing was made.',
            HINT = format('SELECT disable_document_search(%L) first, or search the documents as they are.', target);
  END IF;
  -- One session at a time: what is read from here on stays until it is done.
  PERFORM gte_small.lock_for_change(target, 'SHARE UPDATE EXCLUSIVE', false);
  IF array_ndims(content) IS DISTINCT FROM 1 OR array_position(content, NULL) > 0 THEN
    RAISE EXCEPTION 'no text column is named'
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'There would be nothing to embed; nothing was made.',
            HINT = 'Name the text columns: enable_semantic_search(''docs'', ''{title,body}'').';
  END IF;

  FOREACH source IN ARRAY content LOOP
    IF gte_small.check_text_column(target, source) <> '' THEN
      RAISE EXCEPTION 'column "%" of table % is generated', source, target
        USING ERRCODE = 'generated_always', DETAIL = 'A BEFORE trigger sees it as NULL; nothing was made.',
              HINT = 'Name the columns it is generated from.';
    END IF;
  END LOOP;
  FOR source IN SELECT c FROM unnest(content) c GROUP BY c HAVING count(*) > 1 LOOP
    RAISE EXCEPTION 'column "%" is named twice', source
      USING ERRCODE = 'duplicate_column', DETAIL = 'Nothing was made.', HINT = 'Name each text column once.';
  END LOOP;

  SELECT format_type(a.atttypid, a.atttypmod) AS name, a.attgenerated <> '' AS generated,
         a.atttypmod = 384 AND EXISTS (
           SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'vector'
            WHERE d.classid = 'pg_type'::regclass AND d.objid = a.atttypid AND d.deptype = 'e'
              AND d.refclassid = 'pg_extension'::regclass) AND t.typname = 'vector' AS fits
    INTO kind
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
   WHERE a.attrelid = target AND a.attname = embedding AND NOT a.attisdropped AND a.attnum > 0;
  IF embedding = '' OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = embedding AND a.attnum < 0) THEN
    RAISE EXCEPTION '"%" can''t be the name of an embedding column', embedding
      USING ERRCODE = 'invalid_name', DETAIL = 'PostgreSQL keeps it for itself; nothing was made.', HINT = 'Choose another name: enable_semantic_search(..., embedding => ''embedding'').';
  ELSIF NOT FOUND AND relation.relispartition THEN
    RAISE EXCEPTION 'table % is a partition and has no column "%"', target, embedding
      USING ERRCODE = 'wrong_object_type', DETAIL = 'All partitions get a column or none does; nothing was made.',
            HINT = format('Enable the search on the partitioned table: enable_semantic_search(%L).', pg_partition_root(target));
  ELSIF NOT FOUND AND relation.reloftype <> 0 THEN
    RAISE EXCEPTION 'table % has the columns of type % and no column "%"', target, relation.reloftype::regtype, embedding
      USING ERRCODE = 'wrong_object_type', DETAIL = 'Only the type can get another column, and with it all its tables; nothing was made.',
            HINT = format('ALTER TYPE %s ADD ATTRIBUTE %I %s.vector(384) CASCADE, and enable the search again.',
                          relation.reloftype::regtype, embedding, gte_small.vector_schema());
  ELSIF FOUND AND kind.generated THEN
    RAISE EXCEPTION 'column "%" of table % is generated', embedding, target
      USING ERRCODE = 'generated_always', DETAIL = 'A trigger can''t set it; nothing was made.',
            HINT = 'Name another embedding column; it is added if it does not exist.';
  ELSIF FOUND AND NOT kind.fits THEN
    RAISE EXCEPTION 'column "%" of table % has type %', embedding, target, kind.name
      USING ERRCODE = 'datatype_mismatch', DETAIL = 'An embedding is a vector(384); nothing was made.',
            HINT = 'Name another embedding column, which is added if it does not exist, or change the type of this one to vector(384).';
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.check_target(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name) IS
  'part of enable_semantic_search: refuses a table it can''t work with';

-- The trigger of an embedding column. Its name sorts last among the row triggers.
CREATE FUNCTION gte_small.trigger_name(embedding pg_catalog.name) RETURNS pg_catalog.name
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT ('zzz_gte_small_' || CASE WHEN octet_length(embedding::text) > 49 THEN md5(embedding::text) ELSE embedding::text END)::name
$body$;
COMMENT ON FUNCTION gte_small.trigger_name(pg_catalog.name) IS
  'part of enable_semantic_search: the name of the trigger that fills an embedding column';

-- Whether the trigger of an embedding column is as it is to be. No column list and no WHEN: another trigger may change
-- the text.
CREATE FUNCTION gte_small.trigger_fits(target pg_catalog.regclass, called pg_catalog.name) RETURNS pg_catalog.bool
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname = called AND t.tgtype = 23 AND t.tgqual IS NULL AND t.tgattr = '')
$body$;
COMMENT ON FUNCTION gte_small.trigger_fits(pg_catalog.regclass, pg_catalog.name) IS
  'part of enable_semantic_search: whether a trigger fires for each row that is stored';

-- Makes what is missing or outdated, and returns what it changed.
CREATE FUNCTION gte_small.enable(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name, with_index pg_catalog.bool,
    search_function pg_catalog.name, text_search pg_catalog.regconfig, index_options pg_catalog.jsonb)
  RETURNS pg_catalog.text[]
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
#variable_conflict use_variable
DECLARE
  relation pg_class;
  vec text;
  trigger_name name;
  ours record;
  renamed record;
  former name;
  note jsonb;
  known jsonb;
  is_clone boolean;
  is_new boolean;
  trigger_stays boolean;
  later boolean;
  plan gte_small.index_step[] := '{}';
  strong text;
  wide boolean;
  one text;
  query_function text;
  made oid;
  loaded text;
  no_model text;
  filled boolean;
  lacking boolean;
  of_citus text[];
  changed text[] := '{}';
BEGIN
  of_citus := gte_small.citus_settings(target);
  embedding := gte_small.name_today(target, embedding);
  IF array_ndims(content) = 1 THEN
    content := ARRAY(SELECT gte_small.name_today(target, c) FROM unnest(content) WITH ORDINALITY AS u (c, n) ORDER BY n);
  END IF;
  PERFORM gte_small.check_target(target, content, embedding);
  SELECT * INTO relation FROM pg_class WHERE oid = target;
  vec := gte_small.vector_schema();
  trigger_name := gte_small.trigger_name(embedding);

  -- One trigger fills a column. After a rename of the column it has the earlier name.
  SELECT * INTO ours FROM gte_small.columns_of(target) c WHERE c.embedding = enable.embedding
   ORDER BY c.trigger_name <> trigger_name LIMIT 1;
  IF ours.named[1] <> embedding AND ours.trigger_name = gte_small.trigger_name(ours.named[1]) THEN
    renamed := ours;
  ELSIF ours.trigger_name <> trigger_name THEN
    RAISE EXCEPTION 'trigger "%" of table % fills column "%" already', ours.trigger_name, target, embedding
      USING ERRCODE = 'duplicate_object', DETAIL = 'Nothing was made.',
            HINT = format('DROP TRIGGER %I ON %s, and enable the search again.', ours.trigger_name, target);
  ELSE
    -- Without a note of the column's number, its trigger fails until it is replaced.
    SELECT * INTO renamed FROM gte_small.columns_of(target) c
     WHERE ours.trigger_name IS NULL AND c.content = content AND c.trigger_name = gte_small.trigger_name(c.embedding)
       AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = c.embedding AND NOT a.attisdropped)
     LIMIT 1;
  END IF;
  former := renamed.named[1];
  IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname = trigger_name AND NOT t.tgisinternal)
     AND ours.trigger_name IS DISTINCT FROM trigger_name THEN
    RAISE EXCEPTION 'trigger "%" of table % does not fill column "%"', trigger_name, target, embedding
      USING ERRCODE = 'duplicate_object', DETAIL = 'It has the name that the trigger of this column would have; nothing was made.',
            HINT = format('Rename or drop it, and enable the search again.');
  END IF;
  note := coalesce(ours.note, renamed.note);
  is_clone := EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname IN (trigger_name, renamed.trigger_name) AND t.tgparentid <> 0);
  IF is_clone AND ours.content <> content THEN
    RAISE EXCEPTION 'table % is a partition whose parent fills column "%" from other columns', target, embedding
      USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'Nothing was made.',
            HINT = 'Enable the search on the partitioned table.';
  END IF;

  -- Fixed here, so that a search does not depend on who searches.
  IF text_search IS NULL THEN
    SELECT c.oid INTO text_search FROM pg_ts_config c WHERE gte_small.config(c.oid) = note ->> 'text_search';
    text_search := coalesce(text_search, get_current_ts_config());
  END IF;
  -- A chosen name is remembered, otherwise the name follows the table's.
  -- A partition has its parent's note, but functions of its own.
  search_function := coalesce(search_function, CASE WHEN NOT is_clone THEN (note ->> 'search_function')::name
    ELSE (SELECT p.proname FROM gte_small.made_functions(target, embedding) f JOIN pg_proc p ON p.oid = f
           WHERE p.prorettype = relation.reltype ORDER BY p.oid LIMIT 1) END);
  query_function := coalesce(search_function::text, 'query_' || relation.relname);
  PERFORM gte_small.check_functions(target, content, embedding, former, text_search, query_function);
  index_options := coalesce(index_options, '{}');
  PERFORM gte_small.check_index_options(index_options);

  -- What is to be changed, and the lock for all of it at once.
  FOR made IN SELECT i.indexrelid FROM gte_small.indexes(target, former) i LOOP
    EXECUTE format('COMMENT ON INDEX %s IS %L', made::regclass, gte_small.mark(embedding));
  END LOOP;
  is_new := NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = embedding AND NOT a.attisdropped);
  trigger_stays := is_clone OR coalesce(ours.named = embedding || content AND gte_small.trigger_fits(target, ours.trigger_name), false);
  IF with_index THEN
    plan := gte_small.index_plan(target, content, embedding, text_search, index_options);
  END IF;
  later := plan <> '{}' AND CASE index_options ->> 'build' WHEN 'later' THEN true WHEN 'now' THEN false ELSE gte_small.is_large(target) END;
  strong := CASE
    WHEN is_new OR renamed.trigger_name IS NOT NULL AND NOT is_clone
      OR NOT later AND EXISTS (SELECT FROM unnest(plan) p WHERE p.step = 'drop' AND gte_small.index_heir(target, p.indexrelid, embedding) IS NULL)
      THEN 'ACCESS EXCLUSIVE'
    WHEN NOT trigger_stays OR NOT ours.trigger_enabled OR plan <> '{}' AND NOT later THEN 'SHARE ROW EXCLUSIVE' END;
  IF is_new OR ours.trigger_name IS NULL THEN
    -- Before the lock, because loading a model takes a while.
    BEGIN
      SELECT m.fingerprint INTO loaded FROM gte_small.embed_model() m;
    EXCEPTION WHEN OTHERS THEN
      no_model := SQLERRM;
    END;
  END IF;
  IF strong IS NOT NULL THEN
    -- Tables that inherit from this one get the column, and no more.
    wide := is_new OR relation.relkind = 'p';
    PERFORM gte_small.lock_for_change(target, strong, wide);
  END IF;

  -- From here on things are made.
  IF is_new THEN
    EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s.vector(384)', target, embedding, vec);
    changed := changed || format('column %I', embedding);
  END IF;

  -- The name sorts last among the row triggers: one that rewrites the text after this one would
  -- leave the vector of another text.
  IF NOT trigger_stays THEN
    IF renamed.trigger_name IS NOT NULL THEN
      EXECUTE format('DROP TRIGGER %I ON %s', renamed.trigger_name, target);
    END IF;
    EXECUTE format('CREATE OR REPLACE TRIGGER %I BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION %s.embed_trigger(%L, %s)',
      trigger_name, target, gte_small.extension_schema(), embedding, (SELECT string_agg(quote_literal(c), ', ' ORDER BY n) FROM unnest(content) WITH ORDINALITY AS u (c, n)));
    changed := changed || format('trigger %I', trigger_name);
  ELSIF NOT ours.trigger_enabled THEN
    EXECUTE format('ALTER TABLE %s ENABLE TRIGGER %I', target, ours.trigger_name);
    changed := changed || format('trigger %I (enabled)', ours.trigger_name);
  END IF;
  FOR one IN SELECT t.tgname FROM pg_trigger t
              WHERE t.tgrelid = target AND t.tgtype & 3 = 3 AND t.tgtype & 20 <> 0 AND NOT t.tgisinternal
                AND t.tgname::text COLLATE "C" > trigger_name::text COLLATE "C" AND NOT starts_with(t.tgname::text, 'zzz_gte_small_') LOOP
    RAISE WARNING 'trigger "%" of table % fires after the one that embeds', one, target
      USING DETAIL = 'If it changes the text, the row keeps the embedding of the text before.',
            HINT = format('Rename it so that it sorts before "%s": ALTER TRIGGER %I ON %s RENAME TO ...', trigger_name, one, target);
  END LOOP;

  IF NOT later THEN
    changed := changed || gte_small.make_indexes(target, content, embedding, text_search, index_options, plan);
  END IF;
  changed := changed || gte_small.make_functions(target, content, embedding, former, text_search, query_function);

  -- What is known of the column's model. A partition's clone has its parent's.
  IF NOT is_clone THEN
    filled := false;
    IF NOT is_new THEN
      EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s %s WHERE %I IS NOT NULL)', CASE relation.relkind WHEN 'r' THEN 'ONLY' ELSE '' END,
                     target, embedding) INTO filled;
      -- Under policies that hold for the owner too, rows he can't see may have vectors.
      filled := filled OR row_security_active(target);
    END IF;
    -- Once more: making the index may have taken minutes, and others wrote.
    SELECT c.note INTO known FROM gte_small.embedding_columns(target) c WHERE c.trigger_name = trigger_name;
    note := coalesce(known, renamed.note, CASE WHEN filled THEN '{"fingerprint": null}'::jsonb ELSE '{}' END);
    IF filled AND ours.content <> content THEN
      note := note || '{"outdated": true}';
      RAISE WARNING 'table % has embeddings of other columns than these', target
        USING DETAIL = 'New and changed rows are embedded from the columns named now; the others keep what they have.',
              HINT = format('CALL embed_backfill(%L, force => true);', target);
    END IF;
    IF NOT filled THEN
      -- The model of today is only what is to be expected: the first row that is embedded decides.
      note := note - ARRAY['mixed', 'outdated', 'force', 'fingerprint', 'foreign', 'began'] || '{"empty": true}';
      IF loaded IS NULL AND no_model IS NULL THEN
        BEGIN
          SELECT m.fingerprint INTO loaded FROM gte_small.embed_model() m;
        EXCEPTION WHEN OTHERS THEN
          no_model := SQLERRM;
        END;
      END IF;
      IF no_model IS NULL THEN
        note := note || jsonb_build_object('fingerprint', loaded);
      ELSE
        -- Search needs a model, this does not.
        RAISE NOTICE 'no model is loaded: %', no_model USING HINT = 'Rows can be stored and searched once there is one.';
      END IF;
    END IF;
    note := note - ARRAY['functions', 'index_options']
      || jsonb_build_object('text_search', gte_small.config(text_search), 'columns', gte_small.noted_columns(target, embedding || content))
      || CASE WHEN search_function IS NULL THEN '{}'::jsonb ELSE jsonb_build_object('search_function', search_function) END
      -- For the statements that embedding_status() prints.
      || CASE WHEN later AND index_options - 'build' <> '{}' THEN jsonb_build_object('index_options', index_options - 'build') ELSE '{}' END;
    IF note IS DISTINCT FROM known THEN
      EXECUTE format('COMMENT ON TRIGGER %I ON %s IS %L', trigger_name, target, 'gte-small ' || note::text);
    END IF;
  END IF;

  IF EXISTS (SELECT FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhparent WHERE h.inhparent = target AND c.relkind = 'r') THEN
    RAISE WARNING 'rows of tables that inherit from % are neither embedded nor searched', target
      USING DETAIL = 'A trigger has the rows of its own table only.', HINT = 'Enable the search on each of them.';
  END IF;
  EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s %s AS t WHERE t.%I IS NULL AND (%s))',
                 CASE relation.relkind WHEN 'r' THEN 'ONLY' ELSE '' END, target, embedding, gte_small.has_text(content)) INTO lacking;
  IF lacking THEN
    RAISE NOTICE 'table % has rows without an embedding', target
      USING HINT = format('CALL embed_backfill(%L);', target);
  END IF;
  IF later THEN
    RAISE NOTICE 'no index on table % was built', target
      USING DETAIL = CASE WHEN index_options ->> 'build' = 'later' THEN '' ELSE 'On a large table that takes minutes, and writers would wait. ' END
                     || 'Without indexes searches are exact and read the whole table.',
            HINT = CASE WHEN lacking THEN 'Embed the rows first, which is faster without an index. ' ELSE '' END
                   || E'Then run these statements, each by itself, outside of a transaction block:\n'
                   || (SELECT string_agg(p, E'\n') FROM gte_small.plan_statements(target, content, embedding, text_search, index_options, plan) p);
  END IF;
  PERFORM gte_small.citus_settings_back(of_citus);
  IF gte_small.on_citus() AND changed <> '{}' AND NOT relation.relispartition AND NOT gte_small.is_distributed(target) THEN
    RAISE NOTICE 'table % can be distributed', target
      USING DETAIL = 'Citus distributes tables with triggers when a setting allows it.',
            HINT = format('SET citus.enable_unsafe_triggers = on; SELECT create_distributed_table(%L, ...); and enable the search again, so that workers get the search functions.', target);
  END IF;
  RETURN changed;
EXCEPTION WHEN object_in_use THEN
  RAISE EXCEPTION '%', SQLERRM
    USING ERRCODE = 'object_in_use', DETAIL = 'This session has a cursor on the table, or deferred constraints that are to be checked; nothing was made.',
          HINT = 'COMMIT the transaction first, and enable the search in one of its own.';
END
$body$;
COMMENT ON FUNCTION gte_small.enable(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.bool, pg_catalog.name, pg_catalog.regconfig, pg_catalog.jsonb) IS
  'part of enable_semantic_search: makes what is missing or outdated, and says what it changed';

-- Column names as a user writes them: one, several with commas between them, or an array literal.
CREATE FUNCTION gte_small.column_names(target pg_catalog.regclass, content pg_catalog.text) RETURNS pg_catalog.name[]
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  names name[];
BEGIN
  IF content IS NULL OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = content AND NOT a.attisdropped) THEN
    RETURN CASE WHEN content IS NOT NULL THEN ARRAY[content]::name[] END;
  ELSIF btrim(content) LIKE '{%}' THEN
    BEGIN
      RETURN btrim(content)::name[];
    EXCEPTION WHEN invalid_text_representation THEN
      RAISE EXCEPTION '% is not a list of columns', quote_literal(content)
        USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Nothing was made.',
              HINT = 'Name the text columns: enable_semantic_search(''docs'', ''title, body'').';
    END;
  END IF;
  SELECT array_agg(CASE WHEN part LIKE '"%"' THEN replace(substr(part, 2, length(part) - 2), '""', '"') ELSE part END ORDER BY n)
    INTO names
    FROM (SELECT btrim(p, E' \t\n') AS part, n FROM unnest(string_to_array(content, ',')) WITH ORDINALITY AS u (p, n)) AS parts;
  RETURN coalesce(names, '{}');
END
$body$;
COMMENT ON FUNCTION gte_small.column_names(pg_catalog.regclass, pg_catalog.text) IS
  'part of enable_semantic_search: the columns that a text names';

-- Says what was made, and shows a search. The threshold is the model's, if it is known.
CREATE FUNCTION gte_small.tell_enabled(target pg_catalog.regclass, embedding pg_catalog.name, changed pg_catalog.text[]) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  friendly regproc := (SELECT f::oid FROM gte_small.made_functions(target, embedding) f JOIN pg_proc p ON p.oid = f
                        WHERE p.proname LIKE 'search\_%' AND p.pronargs = 4 LIMIT 1);
  threshold float8;
BEGIN
  IF cardinality(changed) = 0 THEN
    RETURN;
  END IF;
  BEGIN
    threshold := (SELECT m.suggested_threshold FROM gte_small.embed_model() m);
  EXCEPTION WHEN OTHERS THEN
    -- enable() has said that there is no model.
  END;
  -- A function has several forms; its name once is enough.
  RAISE NOTICE 'semantic search on table %: made %', target,
      (SELECT string_agg(made, ', ' ORDER BY n)
         FROM (SELECT regexp_replace(c, '^(function [^(]*)\(.*\)$', '\1') AS made, min(n) AS n
                 FROM unnest(changed) WITH ORDINALITY AS u (c, n) GROUP BY 1) AS m)
    USING HINT = format('Search it: SELECT * FROM %s(''what you look for'', 5%s);', friendly, ', ' || threshold);
END
$body$;
COMMENT ON FUNCTION gte_small.tell_enabled(pg_catalog.regclass, pg_catalog.name, pg_catalog.text[]) IS
  'part of enable_semantic_search: says what was made, and shows a search';

CREATE FUNCTION enable_semantic_search(
    target pg_catalog.regclass,
    content pg_catalog.text DEFAULT 'content',
    embedding pg_catalog.name DEFAULT 'embedding',
    with_index pg_catalog.bool DEFAULT true,
    search_function pg_catalog.name DEFAULT NULL,
    text_search pg_catalog.regconfig DEFAULT NULL,
    index_options pg_catalog.jsonb DEFAULT '{}')
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
BEGIN
  PERFORM gte_small.tell_enabled(target, embedding, gte_small.enable(
    target, gte_small.column_names(target, content), embedding, with_index, search_function, text_search, index_options));
END
$body$;
COMMENT ON FUNCTION enable_semantic_search(pg_catalog.regclass, pg_catalog.text, pg_catalog.name, pg_catalog.bool, pg_catalog.name, pg_catalog.regconfig, pg_catalog.jsonb) IS
  'makes a table searchable by meaning: embedding column, trigger, indexes, search functions; again, it mends what is missing';

-- For a typed array. An untyped literal is text.
CREATE FUNCTION enable_semantic_search(
    target pg_catalog.regclass,
    content pg_catalog.name[],
    embedding pg_catalog.name DEFAULT 'embedding',
    with_index pg_catalog.bool DEFAULT true,
    search_function pg_catalog.name DEFAULT NULL,
    text_search pg_catalog.regconfig DEFAULT NULL,
    index_options pg_catalog.jsonb DEFAULT '{}')
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
BEGIN
  PERFORM gte_small.tell_enabled(target, embedding, gte_small.enable(
    target, content, embedding, with_index, search_function, text_search, index_options));
END
$body$;
COMMENT ON FUNCTION enable_semantic_search(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.bool, pg_catalog.name, pg_catalog.regconfig, pg_catalog.jsonb) IS
  'makes a table searchable by meaning: embedding column, trigger, indexes, search functions; again, it mends what is missing';
