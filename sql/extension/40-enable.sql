-- Semantic search on a table: what it takes, made and undone.

-- What enable_semantic_search may do with a table: everything is checked before anything is made.
CREATE FUNCTION gte_small_check_target(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  relation pg_class;
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
  ELSIF relation.relnamespace IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace, 'information_schema'::regnamespace) THEN
    RAISE EXCEPTION '% is a system table', target
      USING ERRCODE = 'wrong_object_type', DETAIL = 'Nothing was made.', HINT = 'Use a table of your own.';
  ELSIF NOT pg_has_role(relation.relowner, 'USAGE') THEN
    RAISE EXCEPTION 'must be owner of table %', target
      USING ERRCODE = 'insufficient_privilege', DETAIL = 'Nothing was made.',
            HINT = format('Ask a member of role %s.', relation.relowner::regrole);
  END IF;
  IF cardinality(content) = 0 OR array_position(content, NULL) > 0 THEN
    RAISE EXCEPTION 'no text column is named'
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'There would be nothing to embed; nothing was made.',
            HINT = 'Name the text columns: enable_semantic_search(''docs'', ''{title,body}'').';
  END IF;

  FOREACH source IN ARRAY content LOOP
    WITH RECURSIVE base (oid, basetype) AS (
      SELECT t.oid, t.typbasetype FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
       WHERE a.attrelid = target AND a.attname = source AND NOT a.attisdropped AND a.attnum > 0
      UNION ALL
      SELECT t.oid, t.typbasetype FROM base JOIN pg_type t ON t.oid = base.basetype)
    SELECT format_type(a.atttypid, a.atttypmod) AS name, a.attgenerated <> '' AS generated,
           b.oid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'name'::regtype)
             OR EXISTS (SELECT FROM pg_cast WHERE castsource = b.oid AND casttarget = 'text'::regtype AND castmethod = 'b') AS is_text
      INTO kind
      FROM pg_attribute a, base b
     WHERE a.attrelid = target AND a.attname = source AND NOT a.attisdropped AND a.attnum > 0 AND b.basetype = 0;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'column "%" of table % does not exist', source, target
        USING ERRCODE = 'undefined_column', DETAIL = 'Nothing was made.',
              HINT = 'Name the text columns of the table: enable_semantic_search(''docs'', ''{title,body}'').';
    ELSIF NOT kind.is_text THEN
      RAISE EXCEPTION 'column "%" of table % has type %', source, target, kind.name
        USING ERRCODE = 'datatype_mismatch', DETAIL = 'Only text can be embedded; nothing was made.',
              HINT = 'Name a column of type text, or keep the value as text in a column of its own.';
    ELSIF kind.generated THEN
      RAISE EXCEPTION 'column "%" of table % is generated', source, target
        USING ERRCODE = 'generated_always', DETAIL = 'A BEFORE trigger sees it as NULL; nothing was made.',
              HINT = 'Name the columns it is generated from.';
    END IF;
  END LOOP;

  SELECT format_type(a.atttypid, a.atttypmod) AS name, a.attgenerated <> '' AS generated,
         a.atttypmod = 384 AND EXISTS (
           SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'vector'
            WHERE d.classid = 'pg_type'::regclass AND d.objid = a.atttypid AND d.deptype = 'e'
              AND d.refclassid = 'pg_extension'::regclass) AND t.typname = 'vector' AS fits
    INTO kind
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
   WHERE a.attrelid = target AND a.attname = embedding AND NOT a.attisdropped AND a.attnum > 0;
  IF FOUND AND kind.generated THEN
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
COMMENT ON FUNCTION gte_small_check_target(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name) IS
  'part of enable_semantic_search: refuses a table it can''t work with';

-- The functions that enable_semantic_search made for an embedding column, wherever they are now.
CREATE FUNCTION gte_small_search_functions(target pg_catalog.regclass, names pg_catalog.name[])
  RETURNS SETOF pg_catalog.regprocedure
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT p.oid::regprocedure
    FROM pg_depend d
    JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'gte-small'
    JOIN pg_proc p ON p.oid = d.objid
    JOIN pg_class c ON c.oid = target
   WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'x'
     AND p.proname = ANY (names) AND (p.prorettype = c.reltype OR c.reltype = ANY (p.proallargtypes))
   ORDER BY p.oid
$body$;
COMMENT ON FUNCTION gte_small_search_functions(pg_catalog.regclass, pg_catalog.name[]) IS
  'part of enable_semantic_search: of these names, the functions it made for the table';

CREATE FUNCTION enable_semantic_search(
    target pg_catalog.regclass,
    content pg_catalog.name[] DEFAULT '{content}',
    embedding pg_catalog.name DEFAULT 'embedding',
    with_index pg_catalog.bool DEFAULT true,
    search_function pg_catalog.name DEFAULT NULL,
    text_search pg_catalog.regconfig DEFAULT NULL)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  relation pg_class;
  schema_name text;
  vec text;
  trigger_name name := ('zzz_gte_small_' || embedding::text)::name;
  ours record;
  note jsonb;
  known jsonb;
  is_clone boolean;
  later text;
  names text[];
  one regprocedure;
  signature text;
  language text;
  loaded text;
  filled boolean;
  lacking boolean;
BEGIN
  PERFORM @extschema@.gte_small_check_target(target, content, embedding);
  SELECT * INTO relation FROM pg_class WHERE oid = target;
  schema_name := relation.relnamespace::regnamespace::text;
  SELECT e.extnamespace::regnamespace::text INTO vec FROM pg_extension e WHERE e.extname = 'vector';

  -- One trigger fills a column.
  SELECT * INTO ours FROM @extschema@.embedding_columns(target) c WHERE c.embedding = enable_semantic_search.embedding
   ORDER BY c.trigger_name <> trigger_name LIMIT 1;
  IF FOUND AND ours.trigger_name <> trigger_name THEN
    RAISE EXCEPTION 'trigger "%" of table % fills column "%" already', ours.trigger_name, target, embedding
      USING ERRCODE = 'duplicate_object', DETAIL = 'Nothing was made.',
            HINT = format('DROP TRIGGER %I ON %s, and enable the search again.', ours.trigger_name, target);
  END IF;
  note := ours.note;
  is_clone := EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname = trigger_name AND t.tgparentid <> 0);
  IF is_clone AND ours.content <> content THEN
    RAISE EXCEPTION 'table % is a partition whose parent fills column "%" from other columns', target, embedding
      USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'Nothing was made.',
            HINT = 'Enable the search on the partitioned table.';
  END IF;

  -- Names of the functions: a chosen one is remembered, the others follow the table's name.
  search_function := coalesce(search_function, note ->> 'search_function');
  names := CASE WHEN search_function IS NULL THEN ARRAY['query_' || relation.relname, 'hybrid_' || relation.relname]
                WHEN search_function LIKE 'query\_%' THEN ARRAY[search_function::text, 'hybrid_' || substr(search_function, 7)]
                ELSE ARRAY[search_function::text, 'hybrid_' || search_function] END;
  IF octet_length(names[1]) > 63 OR octet_length(names[2]) > 63 THEN
    RAISE EXCEPTION 'function name "%" has more than 63 bytes', names[CASE WHEN octet_length(names[1]) > 63 THEN 1 ELSE 2 END]
      USING ERRCODE = 'name_too_long', DETAIL = 'It would be cut short; nothing was made.',
            HINT = 'Choose a shorter one: enable_semantic_search(..., search_function => ''query_docs'').';
  END IF;
  IF EXISTS (SELECT FROM @extschema@.embedding_columns(target) c
              WHERE c.embedding <> enable_semantic_search.embedding AND c.note -> 'functions' ?| names) THEN
    RAISE EXCEPTION 'function "%" searches another column of table % already', names[1], target
      USING ERRCODE = 'duplicate_function', DETAIL = 'Nothing was made.',
            HINT = 'Choose another name: enable_semantic_search(..., search_function => ''query_titles'').';
  END IF;
  FOREACH signature IN ARRAY ARRAY[
      format('%s.%I(%s.vector,float8)', schema_name, names[1], vec), format('%s.%I(text,float8)', schema_name, names[1]),
      format('%s.%I(%s.vector,float8,int4)', schema_name, names[1], vec), format('%s.%I(text,float8,int4)', schema_name, names[1]),
      format('%s.%I(text,int4,float8,float8,int4)', schema_name, names[2])] LOOP
    one := to_regprocedure(signature);
    IF one IS NOT NULL AND one NOT IN (SELECT f FROM @extschema@.gte_small_search_functions(target, names::name[]) f) THEN
      RAISE EXCEPTION 'function % exists and is not gte-small''s for this table', one
        USING ERRCODE = 'duplicate_function', DETAIL = 'It was left as it is; nothing was made.',
              HINT = 'Drop or rename it, or choose another name: enable_semantic_search(..., search_function => ''query_docs'').';
    END IF;
  END LOOP;
  -- Fixed here, so that a search does not depend on who searches.
  IF text_search IS NULL THEN
    SELECT c.oid INTO text_search FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace
     WHERE format('%I.%I', n.nspname, c.cfgname) = note ->> 'text_search';
    text_search := coalesce(text_search, get_current_ts_config());
  END IF;
  SELECT format('%I.%I', n.nspname, c.cfgname) INTO language
    FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace WHERE c.oid = text_search;

  -- From here on things are made.
  IF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = embedding AND NOT a.attisdropped) THEN
    EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s.vector(384)', target, embedding, vec);
  END IF;

  -- The name sorts last among the row triggers: one that rewrites the text after this one would
  -- leave the vector of another text. No column list and no WHEN, for the same reason.
  IF NOT EXISTS (SELECT FROM pg_trigger t
                  WHERE t.tgrelid = target AND t.tgname = trigger_name AND t.tgtype = 23 AND t.tgqual IS NULL
                    AND t.tgattr = '' AND ours.content = content) THEN
    EXECUTE format('CREATE OR REPLACE TRIGGER %I BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION @extschema@.embed_trigger(%L, %s)',
      trigger_name, target, embedding, (SELECT string_agg(quote_literal(c), ', ' ORDER BY n) FROM unnest(content) WITH ORDINALITY AS u (c, n)));
  ELSIF NOT ours.trigger_enabled THEN
    EXECUTE format('ALTER TABLE %s ENABLE TRIGGER %I', target, trigger_name);
  END IF;
  FOR later IN SELECT t.tgname FROM pg_trigger t
                WHERE t.tgrelid = target AND t.tgtype & 3 = 3 AND t.tgtype & 20 <> 0 AND NOT t.tgisinternal
                  AND t.tgname::text COLLATE "C" > trigger_name::text COLLATE "C" AND t.tgname NOT LIKE 'zzz\_gte\_small\_%' LOOP
    RAISE WARNING 'trigger "%" of table % fires after the one that embeds', later, target
      USING DETAIL = 'If it changes the text, the row keeps the embedding of the text before.',
            HINT = format('Rename it so that it sorts before "%s": ALTER TRIGGER %I ON %s RENAME TO ...', trigger_name, later, target);
  END LOOP;

  IF with_index THEN
    PERFORM @extschema@.gte_small_make_indexes(target, content, embedding, language);
  END IF;

  -- Functions under an earlier name, or in the schema the table was in, would go on without it.
  FOR one IN SELECT f FROM @extschema@.gte_small_search_functions(target,
               ARRAY(SELECT jsonb_array_elements_text(coalesce(note -> 'functions', '[]')))::name[]) f
              JOIN pg_proc p ON p.oid = f
             WHERE p.pronamespace <> relation.relnamespace OR p.proname <> ALL (names) LOOP
    EXECUTE format('DROP FUNCTION %s', one);
  END LOOP;
  PERFORM @extschema@.gte_small_make_search(target, embedding, names[1]);
  PERFORM @extschema@.gte_small_make_hybrid(target, content, embedding, language, names[2]);

  -- What is known of the column's model. A partition's clone has its parent's.
  IF NOT is_clone THEN
    EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %I IS NOT NULL)', target, embedding) INTO filled;
    -- Once more: making the index may have taken minutes, and others wrote.
    SELECT c.note INTO known FROM @extschema@.embedding_columns(target) c WHERE c.trigger_name = trigger_name;
    note := coalesce(known, CASE WHEN filled THEN '{"fingerprint": null}'::jsonb ELSE '{}' END);
    IF NOT filled THEN
      -- The model of today is only what is to be expected: the first row that is embedded decides.
      note := note - ARRAY['mixed', 'force', 'fingerprint'] || '{"empty": true}';
      BEGIN
        SELECT m.fingerprint INTO loaded FROM @extschema@.embed_model() m;
        note := note || jsonb_build_object('fingerprint', loaded);
      EXCEPTION WHEN OTHERS THEN
        -- Search needs a model, this does not.
        RAISE NOTICE 'no model is loaded: %', SQLERRM USING HINT = 'Rows can be stored and searched once there is one.';
      END;
    END IF;
    note := note || jsonb_build_object('functions', names, 'text_search', language)
                 || CASE WHEN search_function IS NULL THEN '{}'::jsonb ELSE jsonb_build_object('search_function', search_function) END;
    IF note IS DISTINCT FROM known THEN
      EXECUTE format('COMMENT ON TRIGGER %I ON %s IS %L', trigger_name, target, 'gte-small ' || note::text);
    END IF;
  END IF;

  EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %I IS NULL AND coalesce(%s) IS NOT NULL)', target, embedding,
                 (SELECT string_agg(quote_ident(c) || '::text', ', ') FROM unnest(content) c)) INTO lacking;
  IF lacking THEN
    RAISE NOTICE 'table % has rows without an embedding', target
      USING HINT = format('CALL embed_backfill(%L);', target);
  END IF;
END
$body$;
COMMENT ON FUNCTION enable_semantic_search(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.bool, pg_catalog.name, pg_catalog.regconfig) IS
  'makes a table searchable by meaning: embedding column, trigger, indexes, search functions; again, it mends what is missing';

CREATE FUNCTION disable_semantic_search(
    target pg_catalog.regclass, embedding pg_catalog.name DEFAULT 'embedding')
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  relation pg_class;
  trigger_name name := ('zzz_gte_small_' || embedding::text)::name;
  ours record;
  one text;
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
  SELECT * INTO ours FROM @extschema@.embedding_columns(target) c
   WHERE c.embedding = disable_semantic_search.embedding AND c.trigger_name = trigger_name;
  IF NOT FOUND THEN
    RAISE NOTICE 'semantic search is not enabled on column "%" of table %, nothing to undo', embedding, target;
    RETURN;
  END IF;
  IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname = trigger_name AND t.tgparentid <> 0) THEN
    RAISE EXCEPTION 'semantic search on partition % is its parent''s', target
      USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'Nothing was dropped.',
            HINT = 'Disable it on the partitioned table.';
  END IF;

  FOR one IN SELECT format('DROP FUNCTION %s', f) FROM @extschema@.gte_small_search_functions(target,
               CASE WHEN ours.note ? 'functions' THEN ARRAY(SELECT jsonb_array_elements_text(ours.note -> 'functions'))::name[]
                    ELSE ARRAY['query_' || relation.relname, 'hybrid_' || relation.relname]::name[] END) f
  LOOP
    EXECUTE one;
  END LOOP;
  FOR one IN SELECT format('DROP INDEX %s', i.indexrelid::regclass) FROM @extschema@.gte_small_indexes(target, embedding, ours.content) i LOOP
    EXECUTE one;
  END LOOP;
  EXECUTE format('DROP TRIGGER %I ON %s', trigger_name, target);
END
$body$;
COMMENT ON FUNCTION disable_semantic_search(pg_catalog.regclass, pg_catalog.name) IS
  'undoes enable_semantic_search: drops trigger, search functions and the indexes it made; the embeddings stay';
