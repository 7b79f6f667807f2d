-- Semantic search on a table: enable_semantic_search() and disable_semantic_search().

-- Checks the arguments of enable_semantic_search, before it creates anything.
CREATE FUNCTION gte_small_check_target(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
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
  ELSIF NOT has_schema_privilege(relation.relnamespace, 'CREATE') THEN
    RAISE EXCEPTION 'permission denied for schema %', relation.relnamespace::regnamespace
      USING ERRCODE = 'insufficient_privilege',
            DETAIL = 'The search functions stand in the table''s schema; nothing was made.',
            HINT = format('GRANT CREATE ON SCHEMA %s TO %I.', relation.relnamespace::regnamespace, current_user);
  END IF;
  -- One session at a time: what is read from here on stays until it is done. CREATE TRIGGER takes
  -- the same lock.
  EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', target);
  IF array_ndims(content) IS DISTINCT FROM 1 OR array_position(content, NULL) > 0 THEN
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
  IF NOT FOUND AND relation.relispartition THEN
    RAISE EXCEPTION 'table % is a partition and has no column "%"', target, embedding
      USING ERRCODE = 'wrong_object_type', DETAIL = 'All partitions get a column or none does; nothing was made.',
            HINT = format('Enable the search on the partitioned table: enable_semantic_search(%L).', pg_partition_root(target));
  ELSIF NOT FOUND AND relation.reloftype <> 0 THEN
    RAISE EXCEPTION 'table % has the columns of type % and no column "%"', target, relation.reloftype::regtype, embedding
      USING ERRCODE = 'wrong_object_type', DETAIL = 'Only the type can get another column, and with it all its tables; nothing was made.',
            HINT = format('ALTER TYPE %s ADD ATTRIBUTE %I %s.vector(384) CASCADE, and enable the search again.',
                          relation.reloftype::regtype, embedding, @extschema@.gte_small_vector_schema());
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
COMMENT ON FUNCTION gte_small_check_target(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name) IS
  'part of enable_semantic_search: refuses a table it can''t work with';

-- The trigger of an embedding column. Its name sorts last among the row triggers.
CREATE FUNCTION gte_small_trigger_name(embedding pg_catalog.name) RETURNS pg_catalog.name
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT ('zzz_gte_small_' || CASE WHEN octet_length(embedding::text) > 49 THEN md5(embedding::text) ELSE embedding::text END)::name
$body$;
COMMENT ON FUNCTION gte_small_trigger_name(pg_catalog.name) IS
  'part of enable_semantic_search: the name of the trigger that fills an embedding column';

-- The functions that enable_semantic_search created for an embedding column, in any schema.
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
     AND (names IS NULL OR p.proname = ANY (names)) AND (p.prorettype = c.reltype OR c.reltype = ANY (p.proallargtypes))
   ORDER BY p.oid
$body$;
COMMENT ON FUNCTION gte_small_search_functions(pg_catalog.regclass, pg_catalog.name[]) IS
  'part of enable_semantic_search: of these names, or of any, the functions it made for the table';

-- The names of a column's functions, from its note; NULL if the note is not valid.
CREATE FUNCTION gte_small_noted_functions(note pg_catalog.jsonb) RETURNS pg_catalog.name[]
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT CASE WHEN jsonb_typeof(note -> 'functions') = 'array'
              THEN ARRAY(SELECT jsonb_array_elements_text(note -> 'functions'))::name[] END
$body$;
COMMENT ON FUNCTION gte_small_noted_functions(pg_catalog.jsonb) IS
  'part of enable_semantic_search: the names of the functions made for a column';

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
  trigger_name name := @extschema@.gte_small_trigger_name(embedding);
  ours record;
  renamed record;
  note jsonb;
  known jsonb;
  is_clone boolean;
  later text;
  names text[];
  one regprocedure;
  made oid;
  signature text;
  loaded text;
  filled boolean;
  lacking boolean;
BEGIN
  PERFORM @extschema@.gte_small_check_target(target, content, embedding);
  SELECT * INTO relation FROM pg_class WHERE oid = target;
  schema_name := relation.relnamespace::regnamespace::text;
  vec := @extschema@.gte_small_vector_schema();

  -- One trigger fills a column.
  SELECT * INTO ours FROM @extschema@.embedding_columns(target) c WHERE c.embedding = enable_semantic_search.embedding
   ORDER BY c.trigger_name <> trigger_name LIMIT 1;
  IF FOUND AND ours.trigger_name <> trigger_name THEN
    RAISE EXCEPTION 'trigger "%" of table % fills column "%" already', ours.trigger_name, target, embedding
      USING ERRCODE = 'duplicate_object', DETAIL = 'Nothing was made.',
            HINT = format('DROP TRIGGER %I ON %s, and enable the search again.', ours.trigger_name, target);
  END IF;
  IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname = trigger_name AND NOT t.tgisinternal)
     AND ours.trigger_name IS NULL THEN
    RAISE EXCEPTION 'trigger "%" of table % does not fill column "%"', trigger_name, target, embedding
      USING ERRCODE = 'duplicate_object', DETAIL = 'It has the name that the trigger of this column would have; nothing was made.',
            HINT = format('Rename or drop it, and enable the search again.');
  END IF;
  -- A column that was renamed: its trigger knows it by the earlier name, and fails until it is replaced.
  SELECT * INTO renamed FROM @extschema@.embedding_columns(target) c
   WHERE ours.trigger_name IS NULL AND c.content = content AND c.trigger_name = @extschema@.gte_small_trigger_name(c.embedding)
     AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = c.embedding AND NOT a.attisdropped)
   LIMIT 1;
  note := coalesce(ours.note, renamed.note);
  is_clone := EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname = trigger_name AND t.tgparentid <> 0);
  IF is_clone AND ours.content <> content THEN
    RAISE EXCEPTION 'table % is a partition whose parent fills column "%" from other columns', target, embedding
      USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'Nothing was made.',
            HINT = 'Enable the search on the partitioned table.';
  END IF;

  -- Names of the functions: a chosen one is remembered, the others follow the table's name.
  search_function := coalesce(search_function, (note ->> 'search_function')::name);
  IF search_function = '' THEN
    RAISE EXCEPTION 'search_function is empty'
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Nothing was made.', HINT = 'Leave it out, or name the function.';
  END IF;
  names := CASE WHEN search_function IS NULL THEN ARRAY['query_' || relation.relname, 'hybrid_' || relation.relname]
                WHEN starts_with(search_function::text, 'query_') THEN ARRAY[search_function::text, 'hybrid_' || substr(search_function, 7)]
                ELSE ARRAY[search_function::text, 'hybrid_' || search_function] END;
  IF octet_length(names[1]) > 63 OR octet_length(names[2]) > 63 THEN
    RAISE EXCEPTION 'function name "%" has more than 63 bytes', names[CASE WHEN octet_length(names[1]) > 63 THEN 1 ELSE 2 END]
      USING ERRCODE = 'name_too_long', DETAIL = 'It would be cut short; nothing was made.',
            HINT = 'Choose a shorter one: enable_semantic_search(..., search_function => ''query_docs'').';
  END IF;
  IF EXISTS (SELECT FROM @extschema@.embedding_columns(target) c
              WHERE c.embedding <> enable_semantic_search.embedding AND c.trigger_name IS DISTINCT FROM renamed.trigger_name
                AND @extschema@.gte_small_noted_functions(c.note)::text[] && names) THEN
    RAISE EXCEPTION 'function "%" searches another column of table % already', names[1], target
      USING ERRCODE = 'duplicate_function', DETAIL = 'Nothing was made.',
            HINT = 'Choose another name: enable_semantic_search(..., search_function => ''query_titles'').';
  END IF;
  FOREACH signature IN ARRAY ARRAY[
      format('%s.%I(%s.vector,float8)', schema_name, names[1], vec), format('%s.%I(text,float8)', schema_name, names[1]),
      format('%s.%I(%s.vector,float8,int4)', schema_name, names[1], vec), format('%s.%I(text,float8,int4)', schema_name, names[1]),
      format('%s.%I(text,int4,float8,float8,int4)', schema_name, names[2])] LOOP
    one := to_regprocedure(signature);
    IF EXISTS (SELECT FROM pg_proc p WHERE p.oid = one AND NOT pg_has_role(p.proowner, 'USAGE')) THEN
      RAISE EXCEPTION 'must be owner of function %', one
        USING ERRCODE = 'insufficient_privilege', DETAIL = 'The table has changed its owner since; nothing was made.',
              HINT = format('A superuser enables the search again, or ALTER FUNCTION %s OWNER TO %I.', one, current_user);
    END IF;
    IF one IS NOT NULL AND one NOT IN (SELECT f FROM @extschema@.gte_small_search_functions(target, names::name[]) f) THEN
      RAISE EXCEPTION 'function % exists and is not gte-small''s for this table', one
        USING ERRCODE = 'duplicate_function', DETAIL = 'It was left as it is; nothing was made.',
              HINT = 'Drop or rename it, or choose another name: enable_semantic_search(..., search_function => ''query_docs'').';
    END IF;
  END LOOP;
  -- Fixed here, so that a search does not depend on who searches.
  IF text_search IS NULL THEN
    SELECT c.oid INTO text_search FROM pg_ts_config c WHERE @extschema@.gte_small_config(c.oid) = note ->> 'text_search';
    text_search := coalesce(text_search, get_current_ts_config());
  END IF;

  -- From here on things are made.
  IF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = embedding AND NOT a.attisdropped) THEN
    EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s.vector(384)', target, embedding, vec);
  END IF;

  IF renamed.trigger_name IS NOT NULL THEN
    EXECUTE format('DROP TRIGGER %I ON %s', renamed.trigger_name, target);
    FOR made IN SELECT i.indexrelid FROM @extschema@.gte_small_indexes(target, renamed.embedding) i LOOP
      EXECUTE format('COMMENT ON INDEX %s IS %L', made::regclass, 'gte-small: for ' || quote_ident(embedding));
    END LOOP;
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
                  AND t.tgname::text COLLATE "C" > trigger_name::text COLLATE "C" AND NOT starts_with(t.tgname::text, 'zzz_gte_small_') LOOP
    RAISE WARNING 'trigger "%" of table % fires after the one that embeds', later, target
      USING DETAIL = 'If it changes the text, the row keeps the embedding of the text before.',
            HINT = format('Rename it so that it sorts before "%s": ALTER TRIGGER %I ON %s RENAME TO ...', trigger_name, later, target);
  END LOOP;

  IF with_index THEN
    PERFORM @extschema@.gte_small_make_indexes(target, content, embedding, text_search);
  END IF;

  -- Functions under an earlier name, or in the schema the table was in, would go on without it.
  FOR one IN SELECT f FROM @extschema@.gte_small_search_functions(target,
               coalesce(@extschema@.gte_small_noted_functions(note), '{}')) f
              JOIN pg_proc p ON p.oid = f
             WHERE p.pronamespace <> relation.relnamespace OR p.proname <> ALL (names) LOOP
    EXECUTE format('DROP FUNCTION %s', one);
  END LOOP;
  PERFORM @extschema@.gte_small_make_search(target, embedding, names[1]);
  PERFORM @extschema@.gte_small_make_hybrid(target, content, embedding, text_search, names[2]);

  -- What is known of the column's model. A partition's clone has its parent's.
  IF NOT is_clone THEN
    EXECUTE format('SELECT EXISTS (SELECT FROM %s %s WHERE %I IS NOT NULL)', CASE relation.relkind WHEN 'r' THEN 'ONLY' ELSE '' END,
                   target, embedding) INTO filled;
    -- Under policies that hold for the owner too, rows he can't see may have vectors.
    filled := filled OR row_security_active(target);
    -- Once more: making the index may have taken minutes, and others wrote.
    SELECT c.note INTO known FROM @extschema@.embedding_columns(target) c WHERE c.trigger_name = trigger_name;
    note := coalesce(known, renamed.note, CASE WHEN filled THEN '{"fingerprint": null}'::jsonb ELSE '{}' END);
    IF filled AND ours.content <> content THEN
      note := note || '{"outdated": true}';
      RAISE WARNING 'table % has embeddings of other columns than these', target
        USING DETAIL = 'New and changed rows are embedded from the columns named now; the others keep what they have.',
              HINT = format('CALL embed_backfill(%L, force => true);', target);
    END IF;
    IF NOT filled THEN
      -- The model of today is only what is to be expected: the first row that is embedded decides.
      note := note - ARRAY['mixed', 'outdated', 'force', 'fingerprint'] || '{"empty": true}';
      BEGIN
        SELECT m.fingerprint INTO loaded FROM @extschema@.embed_model() m;
        note := note || jsonb_build_object('fingerprint', loaded);
      EXCEPTION WHEN OTHERS THEN
        -- Search needs a model, this does not.
        RAISE NOTICE 'no model is loaded: %', SQLERRM USING HINT = 'Rows can be stored and searched once there is one.';
      END;
    END IF;
    note := note || jsonb_build_object('functions', names, 'text_search', @extschema@.gte_small_config(text_search))
                 || CASE WHEN search_function IS NULL THEN '{}'::jsonb ELSE jsonb_build_object('search_function', search_function) END;
    IF note IS DISTINCT FROM known THEN
      EXECUTE format('COMMENT ON TRIGGER %I ON %s IS %L', trigger_name, target, 'gte-small ' || note::text);
    END IF;
  END IF;

  IF EXISTS (SELECT FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhparent WHERE h.inhparent = target AND c.relkind = 'r') THEN
    RAISE WARNING 'rows of tables that inherit from % are neither embedded nor searched', target
      USING DETAIL = 'A trigger has the rows of its own table only.', HINT = 'Enable the search on each of them.';
  END IF;
  EXECUTE format('SELECT EXISTS (SELECT FROM %s %s WHERE %I IS NULL AND coalesce(%s) IS NOT NULL)',
                 CASE relation.relkind WHEN 'r' THEN 'ONLY' ELSE '' END, target, embedding,
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
  trigger_name name := @extschema@.gte_small_trigger_name(embedding);
  ours record;
  one regprocedure;
  made oid;
  noted name[];
  others name[];
  is_clone boolean;
  undone boolean := false;
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
  EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', target);
  SELECT * INTO ours FROM @extschema@.embedding_columns(target) c
   WHERE c.embedding = disable_semantic_search.embedding AND c.trigger_name = trigger_name;
  -- What is left after DROP TRIGGER goes as well: no other column's functions are lost by it.
  others := ARRAY(SELECT unnest(@extschema@.gte_small_noted_functions(c.note)) FROM @extschema@.embedding_columns(target) c
                   WHERE c.embedding <> disable_semantic_search.embedding);
  -- A partition's functions are its own, its trigger is the parent's.
  is_clone := EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname = trigger_name AND t.tgparentid <> 0);
  noted := CASE WHEN NOT is_clone THEN @extschema@.gte_small_noted_functions(ours.note) END;
  FOR one IN SELECT f FROM @extschema@.gte_small_search_functions(target, noted) f JOIN pg_proc p ON p.oid = f
              WHERE p.proname <> ALL (others) LOOP
    IF EXISTS (SELECT FROM pg_proc p WHERE p.oid = one AND NOT pg_has_role(p.proowner, 'USAGE')) THEN
      RAISE EXCEPTION 'must be owner of function %', one
        USING ERRCODE = 'insufficient_privilege', DETAIL = 'The table has changed its owner since; nothing was dropped.',
              HINT = format('A superuser disables the search, or ALTER FUNCTION %s OWNER TO %I.', one, current_user);
    END IF;
    EXECUTE format('DROP FUNCTION %s', one);
    undone := true;
  END LOOP;
  FOR made IN SELECT i.indexrelid FROM @extschema@.gte_small_indexes(target, embedding) i LOOP
    PERFORM @extschema@.gte_small_drop_index(target, made, embedding);
    undone := true;
  END LOOP;
  IF ours.trigger_name IS NOT NULL AND NOT is_clone THEN
    EXECUTE format('DROP TRIGGER %I ON %s', trigger_name, target);
    undone := true;
  END IF;
  IF NOT undone THEN
    RAISE NOTICE 'semantic search is not enabled on column "%" of table %, nothing to undo', embedding, target;
  END IF;
END
$body$;
COMMENT ON FUNCTION disable_semantic_search(pg_catalog.regclass, pg_catalog.name) IS
  'undoes enable_semantic_search: drops trigger, search functions and the indexes it made; the embeddings stay';
