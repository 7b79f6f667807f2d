-- gte-small: the install script, put together from the files of this directory in their order.
-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION "gte-small" CASCADE" to load this file. \quit

-- Below, vector stands unqualified, because the extension's schema is not known to this script on
-- PostgreSQL 14 and 15. Anybody who may create objects in a schema of the search_path could plant
-- a type of that name and have it become the result type of functions owned by a superuser.
DO $check$
DECLARE
  vector_extension pg_catalog.oid;
  found pg_catalog.oid;
  operator_name pg_catalog.text;
BEGIN
  SELECT e.oid INTO vector_extension FROM pg_catalog.pg_extension e
   WHERE e.extname OPERATOR(pg_catalog.=) 'vector';
  found := pg_catalog.to_regtype('vector')::pg_catalog.oid;
  IF vector_extension IS NULL OR found IS NULL OR NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d
     WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid
       AND d.objid OPERATOR(pg_catalog.=) found
       AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid
       AND d.refobjid OPERATOR(pg_catalog.=) vector_extension
       AND d.deptype OPERATOR(pg_catalog.=) 'e') THEN
    RAISE EXCEPTION 'type "vector" is not the one of extension "vector"'
      USING ERRCODE = 'duplicate_object',
            DETAIL = 'Another type of that name comes first in the search path; the extension was not installed.',
            HINT = 'Drop or rename the other type, or install the extension into the schema of extension "vector".';
  END IF;
  FOREACH operator_name IN ARRAY ARRAY['<#>', '<=>', '<->'] LOOP
    found := pg_catalog.to_regoperator(operator_name OPERATOR(pg_catalog.||) '(vector,vector)')::pg_catalog.oid;
    IF found IS NULL OR NOT EXISTS (
      SELECT FROM pg_catalog.pg_depend d
       WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_operator'::pg_catalog.regclass::pg_catalog.oid
         AND d.objid OPERATOR(pg_catalog.=) found
         AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid
         AND d.refobjid OPERATOR(pg_catalog.=) vector_extension
         AND d.deptype OPERATOR(pg_catalog.=) 'e') THEN
      RAISE EXCEPTION 'operator % (vector, vector) is not the one of extension "vector"', operator_name
        USING ERRCODE = 'duplicate_object',
              DETAIL = 'Another operator of that name comes first in the search path; the extension was not installed.',
              HINT = 'Drop the other operator, or install the extension into the schema of extension "vector".';
    END IF;
  END LOOP;
END
$check$;

-- Texts to embeddings, and the trigger that keeps them.

-- COST 1000000: a forward pass takes milliseconds. At a cost of 100 the planner goes for a generic
-- plan of a prepared search and runs the model seven times a query; at this one it stays with the
-- custom plan and runs it once.
CREATE FUNCTION embed(content pg_catalog.text) RETURNS vector(384)
  AS 'MODULE_PATHNAME', 'embed_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION embed(pg_catalog.text) IS
  'embedding of a text: 384 dimensions, unit length';

CREATE FUNCTION embed(contents pg_catalog.text[]) RETURNS vector[]
  AS 'MODULE_PATHNAME', 'embed_array_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION embed(pg_catalog.text[]) IS
  'embeddings of many texts, in their order; NULL for NULL';

CREATE FUNCTION embed_query(search pg_catalog.text) RETURNS vector(384)
  AS 'MODULE_PATHNAME', 'embed_query_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION embed_query(pg_catalog.text) IS
  'embedding of a search string; refuses a blank one and one that is a vector literal';

CREATE FUNCTION embed_trigger() RETURNS trigger
  AS 'MODULE_PATHNAME', 'embed_trigger_gte_small'
  LANGUAGE c;
COMMENT ON FUNCTION embed_trigger() IS
  'BEFORE INSERT OR UPDATE trigger that embeds text columns: embed_trigger(embedding column, text column, ...)';

-- Which columns of a table hold embeddings.

-- A column is known by its trigger, of which there is one on each table (partitions have clones of
-- their parent's). The trigger's comment holds what else is known, as JSON behind "gte-small ":
-- it changes with the transaction, belongs to the owner, and goes with a dump.
CREATE FUNCTION embedding_columns(
    target pg_catalog.regclass,
    OUT embedding pg_catalog.name,
    OUT content pg_catalog.name[],
    OUT trigger_name pg_catalog.name,
    OUT trigger_enabled pg_catalog.bool,
    OUT note pg_catalog.jsonb)
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  one record;
BEGIN
  FOR one IN
    WITH RECURSIVE ours AS (
      SELECT t.oid, t.tgname, t.tgenabled, t.tgnargs, t.tgargs, t.tgparentid
        FROM pg_trigger t
        JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = t.tgfoid
                        AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
        JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'gte-small'
       WHERE t.tgrelid = target AND NOT t.tgisinternal
    ), origins (oid, origin, parent) AS (
      SELECT o.oid, o.oid, o.tgparentid FROM ours o
      UNION ALL
      SELECT o.oid, t.oid, t.tgparentid FROM origins o JOIN pg_trigger t ON t.oid = o.parent
    )
    SELECT o.tgname, o.tgenabled, arguments.names,
           obj_description((SELECT a.origin FROM origins a WHERE a.oid = o.oid AND a.parent = 0), 'pg_trigger') AS description
      FROM ours o
      -- The arguments stand in tgargs one after the other, each with a zero byte behind it.
      CROSS JOIN LATERAL (
        SELECT array_agg(convert_from(decode(replace(hex, ' ', ''), 'hex'), getdatabaseencoding())::name ORDER BY n) AS names
          FROM regexp_split_to_table(regexp_replace(encode(o.tgargs, 'hex'), '(..)', '\1 ', 'g'), '00 ')
               WITH ORDINALITY AS argument (hex, n)
         WHERE n <= o.tgnargs) AS arguments
     ORDER BY o.tgname
  LOOP
    embedding := coalesce(one.names[1], 'embedding');
    content := coalesce(one.names[2:], '{content}');
    trigger_name := one.tgname;
    trigger_enabled := one.tgenabled IN ('O', 'A');
    note := NULL;
    IF one.description LIKE 'gte-small {%' THEN
      BEGIN
        note := substr(one.description, 11)::jsonb;
      EXCEPTION WHEN invalid_text_representation OR untranslatable_character THEN
        -- Somebody edited the comment: nothing is known.
      END;
    END IF;
    RETURN NEXT;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION embedding_columns(pg_catalog.regclass) IS
  'the embedding columns of a table: their text columns, trigger, and what is known of their model';

-- What embed_trigger() does by itself when it embeds; a backfill's UPDATE it leaves alone.
CREATE FUNCTION embedding_written(target pg_catalog.regclass, embedding pg_catalog.name DEFAULT 'embedding')
  RETURNS pg_catalog.void
  AS 'MODULE_PATHNAME', 'embedding_written_gte_small'
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION embedding_written(pg_catalog.regclass, pg_catalog.name) IS
  'notes for a column that embeddings of the model in use were written to it';

-- Where pgvector is: PostgreSQL 14 and 15 don't tell the install script, and it may be moved.
CREATE FUNCTION gte_small_vector_schema() RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
   WHERE e.extname = 'vector'
$body$;
COMMENT ON FUNCTION gte_small_vector_schema() IS
  'part of enable_semantic_search and others: the schema of extension "vector", quoted';

-- Semantic search on a table: what it takes, made and undone.

-- What enable_semantic_search may do with a table: everything is checked before anything is made.
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
     AND (names IS NULL OR p.proname = ANY (names)) AND (p.prorettype = c.reltype OR c.reltype = ANY (p.proallargtypes))
   ORDER BY p.oid
$body$;
COMMENT ON FUNCTION gte_small_search_functions(pg_catalog.regclass, pg_catalog.name[]) IS
  'part of enable_semantic_search: of these names, or of any, the functions it made for the table';

-- The names of the functions of a column, from its note; none where somebody broke that.
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

-- What enable_semantic_search makes of a table: indexes and search functions.

-- The indexes that were made for an embedding column carry a comment that says so: their names may
-- be any. An index of the user's own that serves as well has none, and stays when all is undone.
CREATE FUNCTION gte_small_indexes(
    target pg_catalog.regclass, embedding pg_catalog.name,
    OUT indexrelid pg_catalog.oid, OUT method pg_catalog.name)
  RETURNS SETOF pg_catalog.record
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT i.indexrelid, m.amname
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
   WHERE i.indrelid = target AND obj_description(i.indexrelid, 'pg_class') = 'gte-small: for ' || quote_ident(embedding)
$body$;
COMMENT ON FUNCTION gte_small_indexes(pg_catalog.regclass, pg_catalog.name) IS
  'part of enable_semantic_search: the indexes it made for an embedding column';

-- The name of a text-search configuration that means the same under every search_path.
CREATE FUNCTION gte_small_config(language pg_catalog.regconfig) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT format('%I.%I', n.nspname, t.cfgname) FROM pg_ts_config t JOIN pg_namespace n ON n.oid = t.cfgnamespace
   WHERE t.oid = language
$body$;
COMMENT ON FUNCTION gte_small_config(pg_catalog.regconfig) IS
  'part of enable_semantic_search: the qualified name of a text-search configuration';

-- The words of a row, as the index has them and the search asks for them. At most 100,000
-- characters: a tsvector is limited to 1 MB, and a row with more would be refused.
CREATE FUNCTION gte_small_words(content pg_catalog.name[], language pg_catalog.regconfig, alias pg_catalog.text)
  RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT format('pg_catalog.to_tsvector(%L::pg_catalog.regconfig, pg_catalog."left"(%s, 100000))', @extschema@.gte_small_config(language),
                string_agg(format('coalesce(%s%I::pg_catalog.text, %L)', alias, c, ''),
                           $sep$ operator(pg_catalog.||) E'\n' operator(pg_catalog.||) $sep$ ORDER BY n))
    FROM unnest(content) WITH ORDINALITY AS u (c, n)
$body$;
COMMENT ON FUNCTION gte_small_words(pg_catalog.name[], pg_catalog.regconfig, pg_catalog.text) IS
  'part of enable_semantic_search: the expression of the full-text index';

-- The same expression as the catalogue shows it, to know an index that has it, whoever made it.
CREATE FUNCTION gte_small_words_shown(
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
COMMENT ON FUNCTION gte_small_words_shown(pg_catalog.regclass, pg_catalog.name[], pg_catalog.regconfig) IS
  'part of enable_semantic_search: the expression of the full-text index as the catalogue shows it';

CREATE FUNCTION gte_small_make_indexes(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name, language pg_catalog.regconfig)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  vec text;
  ours text := 'gte-small: for ' || quote_ident(embedding);
  shown text := @extschema@.gte_small_words_shown(target, content, language);
  outdated oid;
BEGIN
  vec := @extschema@.gte_small_vector_schema();
  -- Inner product: on vectors of unit length it orders as the cosine does, and costs the least.
  IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_opclass c ON c.oid = i.indclass[0] JOIN pg_am m ON m.oid = c.opcmethod
                   JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                  WHERE i.indrelid = target AND a.attname = embedding AND i.indisvalid AND i.indpred IS NULL
                    AND c.opcname = 'vector_ip_ops' AND m.amname = 'hnsw') THEN
    PERFORM @extschema@.gte_small_make_index(target, format('hnsw (%I %s.vector_ip_ops)', embedding, vec), ours);
  END IF;

  -- Of other text, or in another language.
  FOR outdated IN SELECT i.indexrelid FROM @extschema@.gte_small_indexes(target, embedding) i
                    JOIN pg_index x ON x.indexrelid = i.indexrelid
                   WHERE i.method = 'gin' AND pg_get_expr(x.indexprs, x.indrelid) <> shown LOOP
    PERFORM @extschema@.gte_small_drop_index(target, outdated, embedding);
  END LOOP;
  IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
                  WHERE i.indrelid = target AND m.amname = 'gin' AND i.indisvalid AND i.indpred IS NULL
                    AND i.indnatts = 1 AND pg_get_expr(i.indexprs, i.indrelid) = shown) THEN
    PERFORM @extschema@.gte_small_make_index(target,
      format('gin ((%s))', @extschema@.gte_small_words(content, language, '')), ours);
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small_make_indexes(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig) IS
  'part of enable_semantic_search: makes the HNSW and the full-text index, where they are missing';

-- Without a name of ours, which an index of another kind may have taken.
CREATE FUNCTION gte_small_make_index(target pg_catalog.regclass, definition pg_catalog.text, description pg_catalog.text)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  before oid[] := ARRAY(SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = target);
  made oid;
BEGIN
  EXECUTE format('CREATE INDEX ON %s USING %s', target, definition);
  SELECT i.indexrelid INTO STRICT made FROM pg_index i WHERE i.indrelid = target AND i.indexrelid <> ALL (before);
  EXECUTE format('COMMENT ON INDEX %s IS %L', made::regclass, description);
END
$body$;
COMMENT ON FUNCTION gte_small_make_index(pg_catalog.regclass, pg_catalog.text, pg_catalog.text) IS
  'part of enable_semantic_search: makes an index with a comment';

-- Drops an index that was made for an embedding column, or hands a full-text index on to another
-- column of the same text.
CREATE FUNCTION gte_small_drop_index(target pg_catalog.regclass, dropped pg_catalog.oid, embedding pg_catalog.name)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  heir name;
BEGIN
  SELECT c.embedding INTO heir
    FROM @extschema@.embedding_columns(target) c
    JOIN pg_ts_config t ON @extschema@.gte_small_config(t.oid) = c.note ->> 'text_search'
    JOIN pg_index i ON i.indexrelid = dropped
   WHERE c.embedding <> embedding
     AND pg_get_expr(i.indexprs, i.indrelid) = @extschema@.gte_small_words_shown(target, c.content, t.oid)
   LIMIT 1;
  IF heir IS NULL THEN
    EXECUTE format('DROP INDEX %s', dropped::regclass);
  ELSE
    EXECUTE format('COMMENT ON INDEX %s IS %L', dropped::regclass, 'gte-small: for ' || quote_ident(heir));
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small_drop_index(pg_catalog.regclass, pg_catalog.oid, pg_catalog.name) IS
  'part of enable_semantic_search: drops an index it made, or leaves it to another embedding column';

-- Gives a function that was just made its owner, comment and dependence: DROP EXTENSION ... CASCADE
-- takes it, and a dump keeps that.
CREATE FUNCTION gte_small_finish_function(
    target pg_catalog.regclass, signature pg_catalog.text, description pg_catalog.text)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  owner name;
BEGIN
  EXECUTE format('COMMENT ON FUNCTION %s IS %L', signature, description);
  EXECUTE format('ALTER FUNCTION %s DEPENDS ON EXTENSION "gte-small"', signature);
  SELECT r.rolname INTO owner FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = target;
  IF owner <> current_user THEN
    EXECUTE format('ALTER FUNCTION %s OWNER TO %I', signature, owner);
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small_finish_function(pg_catalog.regclass, pg_catalog.text, pg_catalog.text) IS
  'part of enable_semantic_search: owner, comment and dependence of a function it made';

-- A table and a function beside it, as generated SQL names them. The rows of a table with
-- inheritance children are its own: the trigger has no others.
CREATE FUNCTION gte_small_qualified(
    target pg_catalog.regclass, function_name pg_catalog.text,
    OUT tbl pg_catalog.text, OUT rows_of pg_catalog.text, OUT func pg_catalog.text)
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT format('%I.%I', n.nspname, c.relname),
         CASE c.relkind WHEN 'r' THEN 'only ' ELSE '' END || format('%I.%I', n.nspname, c.relname),
         format('%I.%I', n.nspname, function_name)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target
$body$;
COMMENT ON FUNCTION gte_small_qualified(pg_catalog.regclass, pg_catalog.text) IS
  'part of enable_semantic_search: the qualified names of a table, its rows and a function beside it';

-- Two arities for each kind of argument. With two arguments, a WHERE around the call is pushed
-- down and a LIMIT around it reaches the index; with match_count the index serves the call in
-- every shape, also from RPC clients and in generic plans. Both run the model once.
--
-- Plain SQL, not STRICT and without SET, so that they are inlined: otherwise each call scans and
-- sorts the whole table. Hence every name and operator is qualified. $1 and not the parameter's
-- name, because "embedding" alone would mean the column and match every row.
CREATE FUNCTION gte_small_make_search(
    target pg_catalog.regclass, embedding pg_catalog.name, function_name pg_catalog.text)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  tbl text;
  rows_of text;
  func text;
  vec text;
  form record;
  body text;
BEGIN
  vec := @extschema@.gte_small_vector_schema();
  SELECT * INTO tbl, rows_of, func FROM @extschema@.gte_small_qualified(target, function_name);
  FOR form IN
    SELECT * FROM (VALUES
      (format('embedding %s.vector', vec), '$1', 'vector'),
      ('search pg_catalog.text', '@extschema@.embed_query($1)', 'text')
    ) AS forms (argument, vector, kind)
  LOOP
    body := format($sql$
with q as materialized (select %2$s as v)
select e.* from %1$s e
where e.%4$I operator(%3$s.<#>) (select v from q)
  operator(pg_catalog.<) operator(pg_catalog.-) coalesce($2, '-infinity')
order by e.%4$I operator(%3$s.<#>) (select v from q)
$sql$, rows_of, form.vector, vec, embedding);
    -- As a literal: a name may have any characters, dollar quotes among them.
    EXECUTE format('create or replace function %s(%s, match_threshold pg_catalog.float8) returns setof %s '
                   'language sql stable parallel safe as %L', func, form.argument, tbl, body);
    PERFORM @extschema@.gte_small_finish_function(target, format('%s(%s, pg_catalog.float8)', func, form.argument),
      format('rows by similarity to a %s, the most similar first, those above match_threshold', form.kind));

    -- The filter follows the sort key, so LIMIT inside and threshold outside give the same rows
    -- as the other way round. "+ 0" sorts again what hnsw.iterative_scan = relaxed_order returns
    -- out of order.
    body := format($sql$
select (s.r).* from (
  select (e.*)::%1$s as r, e.%5$I operator(%4$s.<#>) (select %3$s) as d
  from %2$s e order by d limit $3) s
where s.d operator(pg_catalog.<) operator(pg_catalog.-) coalesce($2, '-infinity')
order by s.d operator(pg_catalog.+) 0::pg_catalog.float8
$sql$, tbl, rows_of, form.vector, vec, embedding);
    EXECUTE format('create or replace function %s(%s, match_threshold pg_catalog.float8, match_count pg_catalog.int4) '
                   'returns setof %s language sql stable parallel safe as %L', func, form.argument, tbl, body);
    PERFORM @extschema@.gte_small_finish_function(target, format('%s(%s, pg_catalog.float8, pg_catalog.int4)', func, form.argument),
      format('the match_count rows most similar to a %s, of them those above match_threshold', form.kind));
  END LOOP;
END
$body$;
COMMENT ON FUNCTION gte_small_make_search(pg_catalog.regclass, pg_catalog.name, pg_catalog.text) IS
  'part of enable_semantic_search: makes the four search functions of an embedding column';

-- Reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009) of the nearest vectors and of
-- the rows that share words with the search.
--
-- Words are weighed by how rare they are, as ts_rank does not: on XQuAD English that alone finds
-- nDCG@10 .97 where OR with ts_rank_cd finds .88 and AND finds .28, and it takes no more than 200
-- rows a word out of the index, where ts_rank would read and parse every row with a common word.
-- What more rows have, be it a word or the whole search, says little: of the rows with all words
-- only those near in meaning count then. Rows with the same words are in the order of meaning.
--
-- Rows are known by tableoid and ctid: a table needs no key, and within one statement they stay.
CREATE FUNCTION gte_small_make_hybrid(
    target pg_catalog.regclass, content pg_catalog.name[], embedding pg_catalog.name,
    language pg_catalog.regconfig, function_name pg_catalog.text)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
#variable_conflict use_variable
DECLARE
  tbl text;
  rows_of text;
  func text;
  vec text;
  body text;
BEGIN
  vec := @extschema@.gte_small_vector_schema();
  SELECT * INTO tbl, rows_of, func FROM @extschema@.gte_small_qualified(target, function_name);
  body := format($sql$
with q as materialized (
  select @extschema@.embed_query($1) as v,
         greatest(coalesce($2, 10)::pg_catalog.int8 operator(pg_catalog.*) 2, 60) as depth),
semantic as (
  select s.part, s.place, s.d, pg_catalog.rank() over (order by s.d) as position
  from (select e.tableoid as part, e.ctid as place, e.%5$I operator(%4$s.<#>) (select v from q) as d
        from %1$s e order by d limit (select depth from q)) s
  where s.d is not null),
words as materialized (
  select pg_catalog.concat('''', pg_catalog.replace(pg_catalog.replace(w.word, E'\\', E'\\\\'), '''', E'\\'''), '''') as word
  from pg_catalog.unnest(pg_catalog.tsvector_to_array(
    pg_catalog.to_tsvector(%3$L::pg_catalog.regconfig, pg_catalog."left"($1, 10000)))) w (word)
  order by pg_catalog.length(w.word) desc limit 32),
terms as materialized (
  select w.word::pg_catalog.tsquery as term, false as is_whole from words w
  union all
  select pg_catalog.string_agg(w.word, ' & ')::pg_catalog.tsquery, true from words w),
found as materialized (
  select f.part, f.place, f.d, t.is_whole, pg_catalog.count(*) over (partition by t.term, t.is_whole) as n
  from terms t cross join lateral (
    select e.tableoid as part, e.ctid as place, e.%5$I operator(%4$s.<#>) (select v from q) as d from %1$s e
    where %2$s operator(pg_catalog.@@) t.term limit 201) f),
hits as (
  select f.part, f.place, f.d, pg_catalog.ln(1::pg_catalog.float8 operator(pg_catalog.+)
    200::pg_catalog.float8 operator(pg_catalog./) f.n::pg_catalog.float8) as weight
  from found f where f.n operator(pg_catalog.<=) 200
  union all
  select s.part, s.place, s.d, pg_catalog.ln(2::pg_catalog.float8)
  from semantic s join %1$s e on e.ctid operator(pg_catalog.=) s.place and e.tableoid operator(pg_catalog.=) s.part, terms t
  where t.is_whole and %2$s operator(pg_catalog.@@) t.term
    and exists (select from found f where f.is_whole and f.n operator(pg_catalog.>) 200)),
full_text as (
  select h.part, h.place, pg_catalog.row_number() over (order by pg_catalog.sum(h.weight) desc, pg_catalog.min(h.d)) as position
  from hits h group by h.part, h.place order by position limit (select depth from q)),
fused as (
  select r.part, r.place, pg_catalog.max(r.full_text) as full_text, pg_catalog.max(r.semantic) as semantic, pg_catalog.sum(r.score) as score
  from (
    select t.part, t.place, t.position as full_text, null::pg_catalog.int8 as semantic, coalesce($3, 1)
      operator(pg_catalog./) (greatest(coalesce($5, 60), 0) operator(pg_catalog.+) t.position)::pg_catalog.float8 as score
    from full_text t
    union all
    select s.part, s.place, null, s.position, coalesce($4, 1)
      operator(pg_catalog./) (greatest(coalesce($5, 60), 0) operator(pg_catalog.+) s.position)::pg_catalog.float8
    from semantic s) r
  group by r.part, r.place
  order by score desc, semantic, full_text limit coalesce($2, 10))
select (e.*)::%6$s, f.full_text, f.semantic, f.score
from fused f join %1$s e on e.ctid operator(pg_catalog.=) f.place and e.tableoid operator(pg_catalog.=) f.part
order by f.score desc, f.semantic, f.full_text
$sql$, rows_of, @extschema@.gte_small_words(content, language, 'e.'), @extschema@.gte_small_config(language), vec, embedding, tbl);
  EXECUTE format('create or replace function %1$s(search pg_catalog.text, match_count pg_catalog.int4 default 10, '
                 'full_text_weight pg_catalog.float8 default 1, semantic_weight pg_catalog.float8 default 1, '
                 'rrf_k pg_catalog.int4 default 60) returns table (item %2$s, full_text_rank pg_catalog.int8, '
                 'semantic_rank pg_catalog.int8, score pg_catalog.float8) language sql stable parallel safe as %3$L', func, tbl, body);
  PERFORM @extschema@.gte_small_finish_function(target,
    format('%s(pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4)', func),
    'rows by meaning and by words: reciprocal rank fusion of semantic and full-text search');
END
$body$;
COMMENT ON FUNCTION gte_small_make_hybrid(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig, pg_catalog.text) IS
  'part of enable_semantic_search: makes the hybrid search function of an embedding column';

-- Embeddings for rows that have none yet: embed_backfill() and embed_backfill_step().
--
-- One batch is one transaction: lock rows without an embedding and read their text in the same
-- statement, embed, update. Reading first and locking later would store the embedding of old text
-- beside new text. FOR NO KEY UPDATE lets foreign keys point at the rows meanwhile, SKIP LOCKED lets
-- several sessions share a table and waits for nobody. A table is walked by its blocks, leaf
-- partition by leaf partition, and again, because rows that were locked or written meanwhile stand
-- behind the walk. A pass that finds no row is the end; or only rows that were written since the
-- call began, as where somebody goes on inserting under gte_small.defer.
--
-- Who does what: embed_backfill_batch() and the procedure touch rows, so that triggers, policies
-- and generated columns of the user's run, which count on the session's search_path. These two have
-- no SET clause, and each name and operator in them is qualified. All else is worked out by
-- functions with a safe search_path, which hand on a job.

CREATE TYPE embed_backfill_job AS (
  -- What is wanted.
  target pg_catalog.regclass,
  embedding pg_catalog.name,
  content pg_catalog.name[],
  batch_size pg_catalog.int4,
  fingerprint pg_catalog.text,
  -- 'missing': rows without an embedding. 'force': all rows. 'moved': those that were written
  -- during a walk over all rows. NULL: done.
  phase pg_catalog.text,
  -- The walk: leaf partitions, the one at hand, the next row, where this leaf ends.
  leaves pg_catalog.oid[],
  leaf pg_catalog.int4,
  at pg_catalog.tid,
  until pg_catalog.int8,
  -- The first leaf comes again as the last, up to this block: a step starts anywhere.
  wrap pg_catalog.int8,
  -- The statements for the blocks from "at" to "upto"; NULL at the end of a pass.
  upto pg_catalog.tid,
  reading pg_catalog.text,
  leaving pg_catalog.text,
  writing pg_catalog.text,
  -- How much text takes a batch's time, in the units of a row's cost.
  budget pg_catalog.float8,
  -- The last transaction before the call began.
  since pg_catalog.xid,
  -- Of the rows this batch found those that were there when the call began, the rows it wrote; the same
  -- of this pass; old rows without an embedding after the last pass.
  wrote pg_catalog.int4,
  found_old pg_catalog.int4,
  pass_old pg_catalog.int8,
  pass_wrote pg_catalog.int8,
  remaining pg_catalog.int8,
  -- Passes in a row that wrote nothing, and how long to wait for the next.
  idle pg_catalog.int4,
  wait pg_catalog.float8,
  -- Rows whose text the model refused in this pass, and what it said of the first.
  refused pg_catalog.int8,
  refusal pg_catalog.text[],
  -- For people.
  rows pg_catalog.int8,
  total pg_catalog.int8,
  began pg_catalog.timestamptz,
  told pg_catalog.timestamptz,
  progress pg_catalog.text,
  -- A walk over all rows (force): whether the note can keep its position, when it was saved last,
  -- what "since" will be for the next pass, the transactions of its own batches, rows that others had locked, leaves
  -- that are done, rows given up, and from where a later call must go on because of them.
  noted pg_catalog.bool,
  saved pg_catalog.timestamptz,
  next_since pg_catalog.xid,
  own pg_catalog.xid[],
  skipped pg_catalog.tid[],
  tries pg_catalog.int4,
  walked pg_catalog.oid[],
  given_up pg_catalog.int8,
  hold_leaf pg_catalog.oid,
  hold_block pg_catalog.int8
);
COMMENT ON TYPE embed_backfill_job IS
  'part of embed_backfill: what embed_backfill() is doing';

COMMENT ON TYPE embed_backfill_job[] IS
  'part of embed_backfill: a job for each embedding column';

-- The block of a row's place.
CREATE FUNCTION embed_backfill_block(place pg_catalog.tid) RETURNS pg_catalog.int8
  LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  AS $body$ SELECT split_part(ltrim(place::text, '('), ',', 1)::int8 $body$;
COMMENT ON FUNCTION embed_backfill_block(pg_catalog.tid) IS
  'part of embed_backfill: the block of a ctid';

-- The tables that hold a table's rows. Foreign tables hold theirs elsewhere.
CREATE FUNCTION embed_backfill_leaves(target pg_catalog.regclass) RETURNS pg_catalog.oid[]
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT coalesce(array_agg(c.oid ORDER BY c.oid), '{}')
    FROM pg_class c
   WHERE c.relkind = 'r' AND (c.oid = target OR c.oid IN (SELECT relid FROM pg_partition_tree(target)))
$body$;
COMMENT ON FUNCTION embed_backfill_leaves(pg_catalog.regclass) IS
  'part of embed_backfill: the tables that hold the rows of a table';

-- The text of a row as an expression over its columns: as embed_trigger() joins them. The cast
-- trims the padding of char(n).
CREATE FUNCTION embed_backfill_text(content pg_catalog.name[], alias pg_catalog.text) RETURNS pg_catalog.text
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT CASE WHEN cardinality(content) = 1 THEN format('%s.%I::pg_catalog.text', alias, content[1])
         ELSE format('CASE WHEN %s THEN pg_catalog.concat_ws(E''\n'', %s) END',
                     (SELECT string_agg(format('%s.%I IS NOT NULL', alias, c), ' OR ' ORDER BY n)
                        FROM unnest(content) WITH ORDINALITY AS u (c, n)),
                     (SELECT string_agg(format('%s.%I::pg_catalog.text', alias, c), ', ' ORDER BY n)
                        FROM unnest(content) WITH ORDINALITY AS u (c, n))) END
$body$;
COMMENT ON FUNCTION embed_backfill_text(pg_catalog.name[], pg_catalog.text) IS
  'part of embed_backfill: SQL expression for the text that a row embeds';

-- Which rows a phase is about, as a condition. $4 are the transactions of this call's own batches,
-- whose rows stand anywhere and need no second visit; $5 the last one before the walk began.
CREATE FUNCTION embed_backfill_condition(phase pg_catalog.text, embedding pg_catalog.name,
    content pg_catalog.name[], alias pg_catalog.text)
  RETURNS pg_catalog.text
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT format(CASE phase
      WHEN 'missing' THEN '%1$s.%2$I IS NULL AND (%3$s)'
      -- Rows that have none by now are for another call.
      WHEN 'moved' THEN '%1$s.%2$I IS NOT NULL'
      ELSE '(%1$s.%2$I IS NOT NULL OR %3$s)' END ||
    CASE WHEN phase IN ('force', 'moved') THEN
      ' AND NOT (%1$s.xmin OPERATOR(pg_catalog.=) ANY ($4))' ELSE '' END ||
    CASE WHEN phase = 'moved' THEN
      ' AND pg_catalog.age(%1$s.xmin) OPERATOR(pg_catalog.<=) pg_catalog.age($5)' ELSE '' END,
    alias, embedding,
    (SELECT string_agg(format('%s.%I IS NOT NULL', alias, c), ' OR ' ORDER BY n)
       FROM unnest(content) WITH ORDINALITY AS u (c, n)))
$body$;
COMMENT ON FUNCTION embed_backfill_condition(pg_catalog.text, pg_catalog.name, pg_catalog.name[], pg_catalog.text) IS
  'part of embed_backfill: SQL condition for the rows that a backfill is about';

-- About how many rows that are, from at most 2,000 blocks of each leaf; or exactly, of those that were
-- there when the call began.
CREATE FUNCTION embed_backfill_count(job @extschema@.embed_backfill_job, exactly pg_catalog.bool) RETURNS pg_catalog.int8
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  leaf oid;
  share float8;
  counted int8;
  total float8 := 0;
BEGIN
  FOREACH leaf IN ARRAY ARRAY(SELECT DISTINCT l FROM unnest(job.leaves) l) LOOP
    share := CASE WHEN exactly THEN 1 ELSE
      least(1, 2000 * current_setting('block_size')::float8 / greatest(1, pg_relation_size(leaf, 'main'))) END;
    BEGIN
      EXECUTE format('SELECT count(*) FROM ONLY %s AS t%s WHERE %s%s', leaf::regclass,
                     CASE WHEN share < 1 THEN format(' TABLESAMPLE SYSTEM (%s)', 100 * share) END,
                     @extschema@.embed_backfill_condition(CASE WHEN job.phase = 'missing' THEN 'missing' ELSE 'all' END,
                                                          job.embedding, job.content, 't'),
                     CASE WHEN exactly THEN ' AND age(t.xmin) > age($1)' END)
         INTO counted USING job.since;
      total := total + counted / share;
    EXCEPTION WHEN undefined_table OR syntax_error THEN
      -- The partition was dropped; a number stands for its name then.
    END;
  END LOOP;
  RETURN total::int8;
END
$body$;
COMMENT ON FUNCTION embed_backfill_count(@extschema@.embed_backfill_job, pg_catalog.bool) IS
  'part of embed_backfill: how many rows a backfill is about';

-- The embedding columns that are meant: the one that is named, or each of the table.
CREATE FUNCTION embed_backfill_columns(
    target pg_catalog.regclass, INOUT embedding pg_catalog.name, OUT content pg_catalog.name[])
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  named CONSTANT name := embedding;
  gone name;
BEGIN
  FOR embedding, content IN
    SELECT DISTINCT ON (c.embedding) c.embedding, c.content FROM @extschema@.embedding_columns(target) c
     WHERE c.embedding = named OR named IS NULL
     -- Of two triggers for a column the last has the say.
     ORDER BY c.embedding, c.trigger_name DESC
  LOOP
    gone := (@extschema@.embedding_columns_gone(target, embedding || content))[1];
    IF gone IS NOT NULL THEN
      RAISE EXCEPTION 'column % of table % does not exist', quote_ident(gone), target
        USING ERRCODE = 'undefined_column',
              DETAIL = format('The trigger that fills %I names it, which follows no RENAME and no DROP COLUMN.', embedding),
              HINT = format('SELECT enable_semantic_search(%L, ...) with the columns as they are called now, or drop the trigger.', target);
    END IF;
    RETURN NEXT;
  END LOOP;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'table % has no embedding column%', target, coalesce(' ' || quote_ident(named), '')
      USING ERRCODE = 'undefined_column',
            DETAIL = 'An embedding column is one that a trigger with embed_trigger() fills.',
            HINT = format('Make one: SELECT enable_semantic_search(%L).', target);
  END IF;
END
$body$;
COMMENT ON FUNCTION embed_backfill_columns(pg_catalog.regclass, pg_catalog.name) IS
  'part of embed_backfill: the embedding columns that a call is about';

-- Checks everything before any work, and makes a job for each embedding column.
CREATE FUNCTION embed_backfill_jobs(target pg_catalog.regclass, batch_size pg_catalog.int4, force pg_catalog.bool,
    embedding pg_catalog.name)
  RETURNS @extschema@.embed_backfill_job[]
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  job @extschema@.embed_backfill_job;
  jobs @extschema@.embed_backfill_job[] := '{}';
  ours record;
  elsewhere text;
BEGIN
  PERFORM @extschema@.embed_backfill_check(target, batch_size, force);
  FOR ours IN SELECT * FROM @extschema@.embed_backfill_columns(target, embedding)
  LOOP
    job.target := target;
    job.embedding := ours.embedding;
    job.content := ours.content;
    job.batch_size := batch_size;
    job.phase := CASE WHEN force THEN 'force' ELSE 'missing' END;
    job.leaves := @extschema@.embed_backfill_leaves(target);
    job.leaf := 0;
    -- 16 texts of a hundred letters or two long ones: the first batch is short also on a slow machine.
    job.budget := 4096;
    job.since := pg_snapshot_xmin(pg_current_snapshot())::xid;
    job.pass_old := 0; job.pass_wrote := 0;
    job.idle := 0; job.wait := 0;
    job.refused := 0;
    job.rows := 0;
    job.own := '{}'; job.skipped := '{}'; job.walked := '{}';
    job.tries := 0; job.given_up := 0;
    jobs := jobs || job;
  END LOOP;

  -- Loads the model, or says why there is none.
  job.fingerprint := (SELECT m.fingerprint FROM @extschema@.embed_model() m);
  FOR i IN 1 .. cardinality(jobs) LOOP
    jobs[i].fingerprint := job.fingerprint;
  END LOOP;

  SELECT string_agg(c.oid::regclass::text, ', ') INTO elsewhere FROM pg_class c
   WHERE c.relkind = 'f' AND (c.oid = target OR c.oid IN (SELECT relid FROM pg_partition_tree(target)));
  IF elsewhere IS NOT NULL THEN
    RAISE NOTICE 'foreign tables are left out: %', elsewhere
      USING HINT = 'Embed their rows on the server that holds them.';
  END IF;
  RETURN jobs;
END
$body$;
COMMENT ON FUNCTION embed_backfill_jobs(pg_catalog.regclass, pg_catalog.int4, pg_catalog.bool, pg_catalog.name) IS
  'part of embed_backfill: checks what a backfill needs and plans it';

-- The next blocks of the walk, with the statements for them. Locks the leaf, so that it stays until
-- the end of the transaction.
CREATE FUNCTION embed_backfill_range(job @extschema@.embed_backfill_job) RETURNS @extschema@.embed_backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  -- 2 MB: the rest of a range is read again by each batch that ends in it.
  blocks CONSTANT int8 := 256;
  leaf oid;
  leaf_name text;
  condition text;
  place text;
  there bool;
  vec text := @extschema@.gte_small_vector_schema();
BEGIN
  job.reading := NULL;
  LOOP
    IF job.until IS NULL THEN
      EXIT WHEN job.leaf >= cardinality(job.leaves);
      job.leaf := job.leaf + 1;
    END IF;
    leaf := job.leaves[job.leaf];

    -- The name is looked up again by the statement, which may wait for a DROP or DETACH to end.
    SELECT c.oid::regclass INTO leaf_name FROM pg_class c WHERE c.oid = leaf;
    there := FOUND;
    IF there THEN
      BEGIN
        EXECUTE format('SELECT FROM ONLY %s WHERE false FOR NO KEY UPDATE', leaf_name);
      EXCEPTION WHEN undefined_table OR invalid_schema_name THEN
        there := false;
      END;
    END IF;
    IF NOT there OR to_regclass(leaf_name) IS DISTINCT FROM leaf::regclass
       OR leaf <> job.target AND NOT EXISTS (SELECT FROM pg_partition_ancestors(leaf) a WHERE a.relid = job.target) THEN
      job.at := NULL;
      job.until := NULL;
      job.skipped := '{}';
      CONTINUE;
    END IF;

    IF job.until IS NULL THEN
      job.until := pg_relation_size(leaf, 'main') / current_setting('block_size')::int8;
      job.at := coalesce(job.at, '(0,0)');
      IF job.wrap IS NOT NULL AND job.leaf = cardinality(job.leaves) THEN
        job.until := job.wrap;
      END IF;
    END IF;
    IF @extschema@.embed_backfill_block(job.at) < job.until THEN
      job.upto := format('(%s,0)', least(@extschema@.embed_backfill_block(job.at) + blocks, job.until))::tid;
      place := 't.ctid OPERATOR(pg_catalog.>=) $1 AND t.ctid OPERATOR(pg_catalog.<) $2';
    ELSIF cardinality(job.skipped) > 0 THEN
      job.upto := job.at;
      place := 't.ctid OPERATOR(pg_catalog.=) ANY ($3)';
    ELSE
      job.walked := job.walked || leaf;
      job.at := NULL;
      job.until := NULL;
      CONTINUE;
    END IF;

    condition := @extschema@.embed_backfill_condition(job.phase, job.embedding, job.content, 't');
    -- In the order of the place, because a batch may end anywhere in the range. The text is joined
    -- outside the sort, which so carries pointers to long texts instead of the texts.
    job.reading := format(
      $sql$SELECT s.place, s.old, s.text, 64 OPERATOR(pg_catalog.+) LEAST(pg_catalog.octet_length(s.text), 2048) AS cost,
                  pg_catalog.octet_length(s.text) AS bytes
             FROM (SELECT r.place, r.old, %s AS text
                     FROM (SELECT t.ctid AS place, pg_catalog.age(t.xmin) OPERATOR(pg_catalog.>) pg_catalog.age($5) AS old,
                                  %s FROM ONLY %s AS t WHERE %s AND %s
                            ORDER BY t.ctid USING OPERATOR(pg_catalog.<)
                              FOR NO KEY UPDATE SKIP LOCKED) AS r OFFSET 0) AS s$sql$,
      @extschema@.embed_backfill_text(ARRAY(SELECT 'c' || n FROM generate_subscripts(job.content, 1) n)::name[], 'r'),
      (SELECT string_agg(format('t.%I AS c%s', c, n), ', ') FROM unnest(job.content) WITH ORDINALITY u (c, n)), leaf_name, place, condition);
    -- What the reading skipped, up to the last row it got.
    job.leaving := format(
      $sql$SELECT pg_catalog.array_agg(t.ctid) FROM ONLY %s AS t
            WHERE %s AND %s AND NOT (t.ctid OPERATOR(pg_catalog.=) ANY ($6))$sql$, leaf_name, place, condition);
    -- One nested loop over the places, whatever the size of the table.
    job.writing := format(
      $sql$WITH written AS (
             UPDATE ONLY %1$s AS t SET %2$I = b.v
               FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS b (place, v)
              WHERE t.ctid OPERATOR(pg_catalog.=) b.place AND %3$s
             RETURNING t.%2$I IS NOT NULL AS embedded)
           SELECT pg_catalog.count(*) %4$s FROM written$sql$,
      leaf_name, job.embedding,
      CASE job.phase
        WHEN 'missing' THEN 'b.v IS NOT NULL'
        WHEN 'force' THEN 'true'
        -- As in embed_verify(): a row that was written meanwhile mostly has the right vector.
        ELSE format('CASE WHEN b.v IS NULL THEN t.%1$I IS NOT NULL WHEN t.%1$I IS NULL THEN true
                     ELSE NOT (%2$s.cosine_distance(t.%1$I, b.v) OPERATOR(pg_catalog.<=) 0.001) END',
                    job.embedding, vec) END,
      CASE WHEN job.phase = 'missing' THEN 'FILTER (WHERE embedded)' END);
    RETURN job;
  END LOOP;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION embed_backfill_range(@extschema@.embed_backfill_job) IS
  'part of embed_backfill: the next blocks of a backfill';

-- Embeds a batch. Texts that the model refuses (too long under on_truncate = error, bytes that are
-- no text) must not keep all others from being embedded: theirs is NULL, and they are named at the end.
CREATE FUNCTION embed_backfill_embed(
    job @extschema@.embed_backfill_job, texts pg_catalog.text[],
    OUT vectors vector[], OUT refused pg_catalog.int4, OUT first_refused pg_catalog.int4, OUT refusal pg_catalog.text[])
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  state text; message text; detail text; hint text;
BEGIN
  IF job.phase <> 'missing' AND (SELECT m.fingerprint FROM @extschema@.embed_model() m) <> job.fingerprint THEN
    RAISE EXCEPTION 'the model was changed during the backfill'
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'Some rows have embeddings of the one and some of the other.',
            HINT = format('CALL embed_backfill(%L, force => true) again.', job.target);
  END IF;
  refused := 0;
  BEGIN
    vectors := @extschema@.embed(texts);
    RETURN;
  EXCEPTION WHEN string_data_right_truncation OR character_not_in_repertoire OR program_limit_exceeded THEN
    vectors := '{}';
  END;
  FOR i IN 1 .. cardinality(texts) LOOP
    BEGIN
      vectors[i] := @extschema@.embed(texts[i]);
    EXCEPTION WHEN string_data_right_truncation OR character_not_in_repertoire OR program_limit_exceeded THEN
      vectors[i] := NULL;
      refused := refused + 1;
      IF refusal IS NULL THEN
        GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
          hint = PG_EXCEPTION_HINT;
        first_refused := i;
        refusal := ARRAY[state, message, detail, hint];
      END IF;
    END;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION embed_backfill_embed(@extschema@.embed_backfill_job, pg_catalog.text[]) IS
  'part of embed_backfill: embeds the texts of a batch and finds those that can''t be';

-- One batch, in the caller's transaction.
CREATE FUNCTION embed_backfill_batch(job @extschema@.embed_backfill_job) RETURNS @extschema@.embed_backfill_job
  LANGUAGE plpgsql
AS $body$
DECLARE
  began pg_catalog.timestamptz := pg_catalog.clock_timestamp();
  reading pg_catalog.refcursor;
  one record;
  embedded record;
  places pg_catalog.tid[] := '{}';
  texts pg_catalog.text[] := '{}';
  cost pg_catalog.float8 := 0;
  bytes pg_catalog.int8 := 0;
  full_batch pg_catalog.bool := false;
  skipped pg_catalog.tid[];
BEGIN
  job.found_old := 0;
  job.wrote := 0;
  LOOP
    job := @extschema@.embed_backfill_range(job);
    EXIT WHEN job.reading IS NULL;
    -- A cursor, because each row it gives is locked and a batch ends by the length of its texts.
    OPEN reading NO SCROLL FOR EXECUTE job.reading USING job.at, job.upto, job.skipped, job.own, job.since;
    LOOP
      FETCH reading INTO one;
      EXIT WHEN NOT FOUND;
      places := pg_catalog.array_append(places, one.place);
      texts := pg_catalog.array_append(texts, one.text);
      job.found_old := job.found_old OPERATOR(pg_catalog.+) one.old::pg_catalog.int4;
      cost := cost OPERATOR(pg_catalog.+) COALESCE(one.cost, 64);
      bytes := bytes OPERATOR(pg_catalog.+) COALESCE(one.bytes, 0);
      -- The model reads 2 kB of a text at most: the limit of 4 MB bounds the memory.
      full_batch := pg_catalog.cardinality(places) OPERATOR(pg_catalog.>=) job.batch_size
        OR cost OPERATOR(pg_catalog.>=) job.budget OR bytes OPERATOR(pg_catalog.>=) 4194304;
      EXIT WHEN full_batch;
    END LOOP;
    CLOSE reading;
    IF job.phase OPERATOR(pg_catalog.<>) 'missing' THEN
      EXECUTE job.leaving INTO skipped
        USING job.at, CASE WHEN full_batch THEN one.place ELSE job.upto END, job.skipped, job.own, job.since, places;
    END IF;
    job := @extschema@.embed_backfill_position(job, CASE WHEN full_batch THEN one.place END, skipped,
                                               pg_catalog.cardinality(places));
    -- Blocks without such a row cost little: several in one transaction, for at most a second.
    EXIT WHEN pg_catalog.cardinality(places) OPERATOR(pg_catalog.>) 0
      OR pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) began OPERATOR(pg_catalog.>) '1 second'::pg_catalog.interval
      OR job.wait OPERATOR(pg_catalog.>) 0;
  END LOOP;
  IF pg_catalog.cardinality(places) OPERATOR(pg_catalog.>) 0 THEN
    began := pg_catalog.clock_timestamp();
    SELECT * INTO embedded FROM @extschema@.embed_backfill_embed(job, texts);
    EXECUTE job.writing INTO job.wrote USING places, embedded.vectors;
    IF job.phase OPERATOR(pg_catalog.=) 'missing' AND job.wrote OPERATOR(pg_catalog.>) 0 THEN
      PERFORM @extschema@.embedding_written(job.target, job.embedding);
    END IF;
    IF embedded.refused OPERATOR(pg_catalog.>) 0 THEN
      job := @extschema@.embed_backfill_refused(job, embedded.refused, embedded.refusal, places[embedded.first_refused]);
    END IF;
  END IF;
  RETURN @extschema@.embed_backfill_account(job, cost, began);
END
$body$;
COMMENT ON FUNCTION embed_backfill_batch(@extschema@.embed_backfill_job) IS
  'part of embed_backfill: one batch of a backfill';

-- Where the next batch begins: behind the last row of a full one, else behind the range.
CREATE FUNCTION embed_backfill_position(job @extschema@.embed_backfill_job, last pg_catalog.tid, skipped pg_catalog.tid[],
    got pg_catalog.int4)
  RETURNS @extschema@.embed_backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  retried bool := job.at = job.upto;
BEGIN
  job.wait := 0;
  IF retried THEN
    job.skipped := coalesce(skipped, '{}');
    -- Whoever has locked the rest gets five seconds.
    job.tries := CASE WHEN got > 0 THEN 0 ELSE job.tries + 1 END;
    IF cardinality(job.skipped) = 0 THEN
      job.tries := 0;
    ELSIF job.tries > 9 THEN
      job.given_up := job.given_up + cardinality(job.skipped);
      IF job.hold_leaf IS NULL AND job.phase = 'force' THEN
        job.hold_leaf := job.leaves[job.leaf];
        job.hold_block := (SELECT min(@extschema@.embed_backfill_block(s)) FROM unnest(job.skipped) s);
      END IF;
      job.skipped := '{}';
      job.tries := 0;
    ELSIF got = 0 THEN
      job.wait := least(1, 0.05 * 2 ^ job.tries);
    END IF;
  ELSE
    job.skipped := job.skipped || skipped;
    -- A row that changed while it was waited for may stand elsewhere by now.
    job.at := CASE WHEN last IS NULL OR last < job.at OR last >= job.upto THEN job.upto
      ELSE format('(%s,%s)', @extschema@.embed_backfill_block(last),
                  rtrim(split_part(last::text, ',', 2), ')')::int + 1)::tid END;
  END IF;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION embed_backfill_position(@extschema@.embed_backfill_job, pg_catalog.tid, pg_catalog.tid[], pg_catalog.int4) IS
  'part of embed_backfill: where a backfill goes on';

CREATE FUNCTION embed_backfill_refused(job @extschema@.embed_backfill_job, refused pg_catalog.int4, refusal pg_catalog.text[],
    place pg_catalog.tid)
  RETURNS @extschema@.embed_backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  job.refused := job.refused + refused;
  IF job.refusal IS NULL THEN
    job.refusal := refusal || job.leaves[job.leaf]::regclass::text || place::text;
  END IF;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION embed_backfill_refused(@extschema@.embed_backfill_job, pg_catalog.int4, pg_catalog.text[], pg_catalog.tid) IS
  'part of embed_backfill: remembers rows whose text can''t be embedded';

-- After a batch: the size of the next, and at the end of a pass, whether there is another.
CREATE FUNCTION embed_backfill_account(job @extschema@.embed_backfill_job, cost pg_catalog.float8, began pg_catalog.timestamptz)
  RETURNS @extschema@.embed_backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  -- Writers of its rows wait for a batch, and at most two seconds when it is twice as slow as the last.
  goal CONSTANT float8 := 0.75;
  seconds float8 := greatest(1e-4, extract(epoch FROM clock_timestamp() - began));
  remaining int8;
BEGIN
  job.pass_old := job.pass_old + job.found_old;
  job.pass_wrote := job.pass_wrote + job.wrote;
  job.rows := job.rows + job.wrote;
  IF cost >= job.budget / 2 OR seconds > goal THEN
    job.budget := greatest(64, least(job.budget * 2, cost / seconds * goal));
  END IF;
  IF job.wrote > 0 AND job.phase <> 'missing' THEN
    job.own := job.own || pg_current_xact_id()::xid;
  END IF;
  IF job.reading IS NULL THEN
    IF job.phase = 'missing' THEN
      job.wait := 0;
      IF job.pass_wrote = 0 OR job.pass_old <= job.refused THEN
        remaining := @extschema@.embed_backfill_count(job, true);
        -- While others get on with it, waiting is not idle.
        job.idle := CASE WHEN remaining < job.remaining THEN 1 ELSE job.idle + 1 END;
        job.remaining := remaining;
        IF remaining <= job.refused OR job.idle > 9 THEN
          job.phase := NULL;
        ELSE
          job.wait := least(1, 0.05 * 2 ^ job.idle);
        END IF;
      ELSE
        job.idle := 0;
      END IF;
      IF job.phase IS NOT NULL THEN
        job.leaves := @extschema@.embed_backfill_leaves(job.target);
        job.refused := 0;
        job.refusal := NULL;
      END IF;
    ELSE
      job := @extschema@.embed_backfill_force_pass(job);
    END IF;
    job.leaf := 0;
    job.at := NULL;
    job.until := NULL;
    job.pass_old := 0;
    job.pass_wrote := 0;
  END IF;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION embed_backfill_account(@extschema@.embed_backfill_job, pg_catalog.float8, pg_catalog.timestamptz) IS
  'part of embed_backfill: what a backfill does after a batch';

-- Embedding all rows of a column again, after a change of model: embed_backfill(force => true).
--
-- Nothing in a row says which model its vector is of. So there is one walk over all rows, whose place
-- is saved every few seconds in the column's note (see embedding_columns), as "force":
-- {"fingerprint", "content", "leaf", "file", "block", "since", "own"}. A later call with the same model
-- and text columns goes on from there. Then come passes over the rows that others wrote since the walk began: an UPDATE that does not
-- touch the text copies the old vector, maybe to a block the walk had behind it.

-- The trigger whose comment is the note: of a partition's trigger the one it was cloned from.
CREATE FUNCTION embed_backfill_note_trigger(target pg_catalog.regclass, embedding pg_catalog.name)
  RETURNS pg_catalog.oid
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  WITH RECURSIVE ours (oid, parent) AS (
    SELECT t.oid, t.tgparentid
      FROM @extschema@.embedding_columns(target) c JOIN pg_trigger t ON t.tgrelid = target AND t.tgname = c.trigger_name
     WHERE c.embedding = embed_backfill_note_trigger.embedding
     UNION ALL
    SELECT t.oid, t.tgparentid FROM ours o JOIN pg_trigger t ON t.oid = o.parent
  )
  SELECT o.oid FROM ours o JOIN pg_trigger t ON t.oid = o.oid WHERE o.parent = 0 ORDER BY t.tgname DESC LIMIT 1
$body$;
COMMENT ON FUNCTION embed_backfill_note_trigger(pg_catalog.regclass, pg_catalog.name) IS
  'part of embed_backfill: the trigger whose comment is the note of an embedding column';

-- Changes the note: "force" becomes what is given, or goes away with what it was about. False if the
-- comment is somebody's own, or the lock for it is not to be had in time.
CREATE FUNCTION embed_backfill_note(job @extschema@.embed_backfill_job, force pg_catalog.jsonb, patience pg_catalog.text)
  RETURNS pg_catalog.bool
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  noted oid := @extschema@.embed_backfill_note_trigger(job.target, job.embedding);
  comment text;
  command text;
  note jsonb;
  before text := current_setting('lock_timeout');
BEGIN
  SELECT format('COMMENT ON TRIGGER %I ON %s IS ', t.tgname, t.tgrelid::regclass) INTO command
    FROM pg_trigger t WHERE t.oid = noted;
  comment := obj_description(noted, 'pg_trigger');
  IF command IS NULL OR comment NOT LIKE 'gte-small%' THEN
    RETURN false;
  END IF;
  PERFORM set_config('lock_timeout', patience, true);
  -- Waits for the lock and lets it go again, so that what is read next is not what somebody else
  -- is about to change.
  BEGIN
    EXECUTE command || coalesce(quote_literal(comment), 'NULL');
    RAISE EXCEPTION USING ERRCODE = 'GT000', MESSAGE = 'taken back';
  EXCEPTION WHEN SQLSTATE 'GT000' THEN
  WHEN lock_not_available THEN
    PERFORM set_config('lock_timeout', before, true);
    RETURN false;
  END;
  BEGIN
    comment := obj_description(noted, 'pg_trigger');
    BEGIN
      note := CASE WHEN comment LIKE 'gte-small {%' THEN substr(comment, 11)::jsonb ELSE '{}' END;
    EXCEPTION WHEN invalid_text_representation OR untranslatable_character THEN
      note := '{}';
    END;
    IF force IS NOT NULL THEN
      -- "mixed" was set by others, during the walk that is going on.
      note := note || jsonb_build_object('force', force || CASE
        WHEN note #>> '{force,fingerprint}' = force ->> 'fingerprint' AND note #> '{force,mixed}' IS NOT NULL
        THEN jsonb_build_object('mixed', note #> '{force,mixed}') ELSE '{}' END);
    ELSE
      note := note - ARRAY['mixed', 'force', 'outdated'] || jsonb_build_object('fingerprint', job.fingerprint)
           || CASE WHEN note #> '{force,mixed}' = 'true' THEN '{"mixed": true}'::jsonb ELSE '{}' END;
    END IF;
    EXECUTE command || quote_literal('gte-small ' || note::text);
    PERFORM set_config('lock_timeout', before, true);
    RETURN true;
  EXCEPTION WHEN lock_not_available THEN
    PERFORM set_config('lock_timeout', before, true);
    RETURN false;
  END;
END
$body$;
COMMENT ON FUNCTION embed_backfill_note(@extschema@.embed_backfill_job, pg_catalog.jsonb, pg_catalog.text) IS
  'part of embed_backfill: writes the progress of a forced backfill into the note of its column';

-- One session at a time: the lock is taken by each transaction, because one of the session would
-- outlive a call that failed. And each looks whether the walk still means all rows: one that policies
-- hide, or that embeds other columns by now, would be noted as done.
CREATE FUNCTION embed_backfill_force_lock(job @extschema@.embed_backfill_job, looks pg_catalog.int4 DEFAULT 0)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  key CONSTANT int4 := hashtext('gte-small embed_backfill');
  held bool := false;
  hiding oid;
BEGIN
  -- Between two transactions of a walk its lock is free for an instant: a newcomer looks more than once.
  FOR i IN 1 .. looks LOOP
    held := EXISTS (SELECT FROM pg_locks l
                     WHERE l.locktype = 'advisory' AND l.classid::int8 = key::bit(32)::int8 AND l.objid = job.target
                       AND l.objsubid = 2 AND l.granted AND l.pid <> pg_backend_pid()
                       AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()));
    EXIT WHEN held;
    PERFORM pg_sleep(0.005);
  END LOOP;
  IF held OR NOT pg_try_advisory_xact_lock(key, job.target::oid::int8::bit(32)::int4) THEN
    RAISE EXCEPTION 'another session is embedding all rows of % again', job.target
      USING ERRCODE = 'object_in_use', DETAIL = 'Only one can do so at a time.',
            HINT = 'See application_name in pg_stat_activity for its progress.';
  END IF;
  SELECT l INTO hiding FROM unnest(job.target::oid || @extschema@.embed_backfill_leaves(job.target)) l
   WHERE row_security_active(l) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'row-level security hides rows of table % from %', hiding::regclass, current_user
      USING ERRCODE = 'insufficient_privilege',
            DETAIL = 'Hidden rows would keep embeddings of the former model, and the column be noted as of the one in use.',
            HINT = format('Call it as a role with BYPASSRLS, or ALTER TABLE %s NO FORCE ROW LEVEL SECURITY first.', hiding::regclass);
  END IF;
  IF job.content IS DISTINCT FROM (SELECT c.content FROM @extschema@.embedding_columns(job.target) c
                                    WHERE c.embedding = job.embedding ORDER BY c.trigger_name DESC LIMIT 1) THEN
    RAISE EXCEPTION 'column % of % embeds other columns now', quote_ident(job.embedding), job.target
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'Some rows have embeddings of the former columns and some of those before.',
            HINT = format('CALL embed_backfill(%L, force => true) again.', job.target);
  END IF;
END
$body$;
COMMENT ON FUNCTION embed_backfill_force_lock(@extschema@.embed_backfill_job, pg_catalog.int4) IS
  'part of embed_backfill: sees that only one session forces a backfill';

-- Starts a walk, or takes up the one that a call with the same model left.
CREATE FUNCTION embed_backfill_force_begin(job @extschema@.embed_backfill_job) RETURNS @extschema@.embed_backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  former jsonb;
  leaf oid;
BEGIN
  IF NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = job.target), 'USAGE') THEN
    RAISE EXCEPTION 'must be owner of table %', job.target
      USING ERRCODE = 'insufficient_privilege',
            DETAIL = 'To embed all rows again changes what is noted of the column. Nothing was embedded.',
            HINT = 'Ask the owner, or leave force out to embed the rows that have no embedding.';
  END IF;
  IF EXISTS (SELECT FROM @extschema@.embedding_columns(job.target) c
               JOIN pg_trigger t ON t.tgrelid = job.target AND t.tgname = c.trigger_name
              WHERE c.embedding = job.embedding AND t.tgparentid <> 0) THEN
    RAISE EXCEPTION '% is a partition', job.target
      USING ERRCODE = 'wrong_object_type',
            DETAIL = 'The vectors of a partitioned table must be of one model. Nothing was embedded.',
            HINT = 'Name the partitioned table.';
  END IF;
  PERFORM @extschema@.embed_backfill_force_lock(job, looks => 5);

  job.next_since := job.since;
  job.saved := clock_timestamp();
  SELECT c.note -> 'force' INTO former FROM @extschema@.embedding_columns(job.target) c
   WHERE c.embedding = job.embedding ORDER BY c.trigger_name DESC LIMIT 1;
  IF former ->> 'fingerprint' = job.fingerprint AND former -> 'content' = to_jsonb(job.content) AND former ->> 'since' ~ '^\d{1,10}$' THEN
    leaf := to_regclass(former ->> 'leaf');
    IF leaf = ANY (job.leaves) THEN
      job.since := (former ->> 'since')::xid;
      BEGIN
        job.own := ARRAY(SELECT n::text::xid
                           FROM jsonb_array_elements(former -> 'own') span,
                                generate_series((span ->> 0)::int8, least((span ->> 1)::int8, (span ->> 0)::int8 + 1000000)) n);
      EXCEPTION WHEN data_exception THEN
        -- Somebody edited the comment: those rows are checked again.
        job.own := '{}';
      END;
      job.leaf := array_position(job.leaves, leaf) - 1;
      job.walked := job.leaves[:job.leaf];
      -- VACUUM FULL, CLUSTER and the like make a new file, in which rows stand elsewhere.
      IF former -> 'file' = to_jsonb(pg_relation_filenode(leaf)::int8) AND former ->> 'block' ~ '^\d{1,10}$' THEN
        job.at := format('(%s,0)', former ->> 'block')::tid;
      END IF;
    END IF;
  END IF;
  -- Nobody's rows are locked here: this may wait.
  job.noted := @extschema@.embed_backfill_note(job, @extschema@.embed_backfill_force_place(job), '0');
  RETURN job;
END
$body$;
COMMENT ON FUNCTION embed_backfill_force_begin(@extschema@.embed_backfill_job) IS
  'part of embed_backfill: begins or resumes a forced backfill';

-- Where a later call would go on.
CREATE FUNCTION embed_backfill_force_place(job @extschema@.embed_backfill_job) RETURNS pg_catalog.jsonb
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT jsonb_build_object('fingerprint', job.fingerprint, 'content', job.content, 'since', job.since::text, 'leaf', leaf::regclass::text,
                            'file', pg_relation_filenode(leaf)::int8, 'block', block,
                            -- The last thousand spans of its transactions, first and last of each: a quiet server
                            -- has one, a busy one a span for each batch. Rows of those before run the model again
                            -- to be seen as right.
                            'own', (SELECT coalesce(jsonb_agg(s.span), '[]')
                                      FROM (SELECT jsonb_build_array(min(n), max(n)) AS span
                                              FROM (SELECT n, n - row_number() OVER (ORDER BY n) AS island
                                                      FROM (SELECT DISTINCT x::text::int8 AS n FROM unnest(job.own) x) d) i
                                             GROUP BY island ORDER BY min(n) DESC LIMIT 1000) s))
    FROM (SELECT coalesce(job.hold_leaf, job.leaves[greatest(1, job.leaf + CASE WHEN job.until IS NULL THEN 1 ELSE 0 END)]) AS leaf,
                 CASE WHEN job.hold_leaf IS NOT NULL THEN job.hold_block
                      ELSE least(coalesce(@extschema@.embed_backfill_block(job.at), 0),
                                 (SELECT min(@extschema@.embed_backfill_block(s)) FROM unnest(job.skipped) s)) END AS block) w
$body$;
COMMENT ON FUNCTION embed_backfill_force_place(@extschema@.embed_backfill_job) IS
  'part of embed_backfill: the place of a forced backfill as its column''s note keeps it';

-- Saves the place every five seconds, in a transaction of its own: COMMENT takes a lock that VACUUM
-- has, and writers of a batch's rows must not wait for VACUUM.
CREATE FUNCTION embed_backfill_force_save(job @extschema@.embed_backfill_job) RETURNS @extschema@.embed_backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  IF job.phase = 'force' AND job.noted AND job.leaf > 0 AND job.until IS NOT NULL
     AND clock_timestamp() - job.saved > interval '5 seconds' THEN
    job.own := job.own || pg_current_xact_id()::xid;
    PERFORM @extschema@.embed_backfill_note(job, @extschema@.embed_backfill_force_place(job), '100ms');
    job.saved := clock_timestamp();
  END IF;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION embed_backfill_force_save(@extschema@.embed_backfill_job) IS
  'part of embed_backfill: saves the place of a forced backfill';

-- After a pass: what is left to do.
CREATE FUNCTION embed_backfill_force_pass(job @extschema@.embed_backfill_job) RETURNS @extschema@.embed_backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  attached oid[];
BEGIN
  IF job.given_up > 0 THEN
    -- The note keeps "force": the next call goes on where the first of these rows is.
    IF job.noted AND job.phase = 'force' THEN
      PERFORM @extschema@.embed_backfill_note(job, @extschema@.embed_backfill_force_place(job), '0');
    END IF;
    job.phase := NULL;
    RETURN job;
  END IF;
  IF job.phase = 'force' THEN
    attached := ARRAY(SELECT l FROM unnest(@extschema@.embed_backfill_leaves(job.target)) l
                       WHERE l <> ALL (job.walked) AND l <> ALL (job.leaves) ORDER BY l);
    IF cardinality(attached) > 0 THEN
      job.leaves := attached;
      RETURN job;
    END IF;
    job.phase := 'moved';
  ELSIF job.pass_wrote = 0 THEN
    IF job.noted THEN
      PERFORM @extschema@.embed_backfill_note(job, NULL, '0');
    END IF;
    job.phase := NULL;
    RETURN job;
  ELSE
    job.since := job.next_since;
  END IF;
  job.leaves := @extschema@.embed_backfill_leaves(job.target);
  job.next_since := pg_snapshot_xmin(pg_current_snapshot())::xid;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION embed_backfill_force_pass(@extschema@.embed_backfill_job) IS
  'part of embed_backfill: what a forced backfill does after a pass';

-- What people call: embed_backfill() and embed_backfill_step(); and what they are told meanwhile.

-- What is known to be in the way before any work.
CREATE FUNCTION embed_backfill_check(target pg_catalog.regclass, batch_size pg_catalog.int4, force pg_catalog.bool)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  owners text;
BEGIN
  IF target IS NULL OR batch_size IS NULL OR force IS NULL THEN
    RAISE EXCEPTION '% must not be NULL',
        CASE WHEN target IS NULL THEN 'target' WHEN batch_size IS NULL THEN 'batch_size' ELSE 'force' END
      USING ERRCODE = 'null_value_not_allowed', DETAIL = 'Nothing was embedded.',
            HINT = 'Name a table: embed_backfill(''documents'').';
  END IF;
  IF batch_size < 1 THEN
    RAISE EXCEPTION 'batch_size is %', batch_size
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Nothing was embedded.',
            HINT = 'Take 1 or more rows at a time; 256 is the default.';
  END IF;
  IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION 'a backfill needs the isolation level read committed, and this is %',
        current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state',
            DETAIL = 'Rows that others change meanwhile would end it with serialization failures. Nothing was embedded.',
            HINT = 'SET default_transaction_isolation TO ''read committed'' and call it again.';
  END IF;
  IF current_setting('transaction_read_only')::bool THEN
    RAISE EXCEPTION 'a backfill writes, and %', CASE WHEN pg_is_in_recovery() THEN 'this server is a standby'
        ELSE 'this transaction is read-only' END
      USING ERRCODE = 'read_only_sql_transaction', DETAIL = 'Nothing was embedded.',
            HINT = CASE WHEN pg_is_in_recovery() THEN 'Call it on the primary; its embeddings come along.'
                   ELSE 'SET default_transaction_read_only TO off, or SET TRANSACTION READ WRITE, and call it again.' END;
  END IF;

  -- As with any UPDATE: a table's owner chooses its triggers, index expressions and policies.
  SELECT string_agg(DISTINCT quote_ident(r.rolname), ', ') INTO owners
    FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
   WHERE (c.oid = target OR c.oid = ANY (@extschema@.embed_backfill_leaves(target))) AND NOT r.rolsuper;
  IF owners IS NOT NULL AND (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user) THEN
    RAISE WARNING 'a superuser is writing to table % of %', target, owners
      USING DETAIL = 'The owner''s triggers and index expressions run with a superuser''s rights.',
            HINT = 'Where the owner is not trusted, SET ROLE to him first.';
  END IF;
END
$body$;
COMMENT ON FUNCTION embed_backfill_check(pg_catalog.regclass, pg_catalog.int4, pg_catalog.bool) IS
  'part of embed_backfill: refuses what can''t be done, before any work';

-- A trigger's arguments are names and not dependencies.
CREATE FUNCTION embedding_columns_gone(target pg_catalog.regclass, named pg_catalog.name[]) RETURNS pg_catalog.name[]
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT array_agg(n ORDER BY place) FROM unnest(named) WITH ORDINALITY AS u (n, place)
   WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = n AND NOT a.attisdropped)
$body$;
COMMENT ON FUNCTION embedding_columns_gone(pg_catalog.regclass, pg_catalog.name[]) IS
  'part of embedding_status: those of the columns that the table has no more';

-- Progress: for other sessions a line for application_name, which has 63 bytes, and every ten seconds
-- a NOTICE for this one.
CREATE FUNCTION embed_backfill_tell(job @extschema@.embed_backfill_job) RETURNS @extschema@.embed_backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  seconds float8;
  rate float8;
  rest text := '';
BEGIN
  IF job.began IS NULL THEN
    job.began := clock_timestamp();
    job.told := job.began;
    job.total := @extschema@.embed_backfill_count(job, false);
  END IF;
  seconds := greatest(1e-3, extract(epoch FROM clock_timestamp() - job.began));
  rate := job.rows / seconds;
  IF job.rows > 0 THEN
    rest := format(', %s rows/s, %s s left', round(rate::numeric, CASE WHEN rate < 10 THEN 1 ELSE 0 END),
                   ceil(greatest(0, job.total - job.rows) / rate));
  END IF;
  job.progress := format('gte-small: %s %s/%s%s', left((SELECT c.relname FROM pg_class c WHERE c.oid = job.target), 16),
                         job.rows, job.total, replace(rest, ', ', ' '));
  IF clock_timestamp() - job.told > interval '10 seconds' THEN
    RAISE NOTICE '%.%: % of about % rows%', job.target, quote_ident(job.embedding), job.rows, job.total, rest;
    job.told := clock_timestamp();
  END IF;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION embed_backfill_tell(@extschema@.embed_backfill_job) IS
  'part of embed_backfill: says how far a backfill is';

-- The end of a job: what was done, what was left, and as an error, which text could not be embedded.
CREATE FUNCTION embed_backfill_end(jobs @extschema@.embed_backfill_job[]) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  job @extschema@.embed_backfill_job;
  seconds float8;
  left_over int8;
BEGIN
  FOREACH job IN ARRAY jobs LOOP
    IF job.began IS NOT NULL THEN
      seconds := greatest(1e-3, extract(epoch FROM clock_timestamp() - job.began));
      RAISE NOTICE '%.%: % rows embedded in % s (% rows/s)', job.target, quote_ident(job.embedding), job.rows,
        round(seconds::numeric, 1), round((job.rows / seconds)::numeric, 1);
    END IF;
    left_over := CASE WHEN job.given_up > 0 THEN job.given_up ELSE greatest(0, job.remaining - job.refused) END;
    IF left_over > 0 THEN
      RAISE NOTICE '% rows of % were left out: other sessions have them locked, or a trigger kept them from being written',
          left_over, job.target
        USING HINT = 'Call it again.';
    END IF;
  END LOOP;
  FOREACH job IN ARRAY jobs LOOP
    IF job.refusal IS NOT NULL THEN
      RAISE EXCEPTION 'row % of %: %', job.refusal[6], job.refusal[5], job.refusal[2]
        USING ERRCODE = job.refusal[1],
              DETAIL = CASE WHEN job.refused > 1
                THEN format('%s rows of %s have no embedding for such a reason, this is the first. All others have theirs.', job.refused, job.target)
                ELSE 'It has no embedding. All other rows have theirs.' END,
              HINT = format('Find it by SELECT * FROM %s WHERE ctid = %L. %s', job.refusal[5], job.refusal[6], job.refusal[4]);
    END IF;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION embed_backfill_end(@extschema@.embed_backfill_job[]) IS
  'part of embed_backfill: says what a backfill did and what it left';

CREATE FUNCTION embed_backfill_no_commit(procedure_name pg_catalog.text) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  RAISE EXCEPTION '% can''t run inside a transaction block', procedure_name
    USING ERRCODE = 'invalid_transaction_termination',
          DETAIL = 'It commits after each batch, so that nobody waits for its locks and nothing is lost. Nothing was embedded.',
          HINT = 'Call it in autocommit mode (psycopg: connect(..., autocommit=True)), alone in its statement and outside of functions, or call embed_backfill_step() until it returns 0.';
END
$body$;
COMMENT ON FUNCTION embed_backfill_no_commit(pg_catalog.text) IS
  'part of embed_backfill: refuses to run where COMMIT is not allowed';

CREATE PROCEDURE embed_backfill(target pg_catalog.regclass, batch_size pg_catalog.int4 DEFAULT 256,
    force pg_catalog.bool DEFAULT false, embedding pg_catalog.name DEFAULT NULL)
  LANGUAGE plpgsql
AS $body$
DECLARE
  jobs @extschema@.embed_backfill_job[];
  job @extschema@.embed_backfill_job;
  refusal pg_catalog.text;
BEGIN
  -- COMMIT fails in any block with an EXCEPTION clause; in a transaction block it fails otherwise, with
  -- the message that a DO inside another statement always gets. Messages are translated, hence both.
  BEGIN
    EXECUTE 'DO LANGUAGE plpgsql $do$ BEGIN COMMIT; END $do$';
  EXCEPTION WHEN invalid_transaction_termination THEN
    refusal := SQLERRM;
  END;
  BEGIN
    COMMIT;
  EXCEPTION WHEN invalid_transaction_termination THEN
    IF SQLERRM OPERATOR(pg_catalog.=) refusal THEN
      PERFORM @extschema@.embed_backfill_no_commit('embed_backfill()');
    END IF;
  END;

  jobs := @extschema@.embed_backfill_jobs(target, batch_size, force, embedding);
  FOR i IN 1 .. pg_catalog.cardinality(jobs) LOOP
    job := jobs[i];
    IF force THEN
      job := @extschema@.embed_backfill_force_begin(job);
      COMMIT;
    END IF;
    LOOP
      IF force THEN
        PERFORM @extschema@.embed_backfill_force_lock(job);
      END IF;
      job := @extschema@.embed_backfill_tell(job);
      PERFORM pg_catalog.set_config('application_name', job.progress, true);
      job := @extschema@.embed_backfill_batch(job);
      COMMIT;
      EXIT WHEN job.phase IS NULL;
      IF force THEN
        job := @extschema@.embed_backfill_force_save(job);
        COMMIT;
      END IF;
      -- Without a snapshot, which would keep VACUUM from cleaning up meanwhile.
      IF job.wait OPERATOR(pg_catalog.>) 0 THEN
        PERFORM pg_catalog.pg_sleep(job.wait);
        COMMIT;
      END IF;
    END LOOP;
    jobs[i] := job;
  END LOOP;
  PERFORM @extschema@.embed_backfill_end(jobs);
END
$body$;
COMMENT ON PROCEDURE embed_backfill(pg_catalog.regclass, pg_catalog.int4, pg_catalog.bool, pg_catalog.name) IS
  'embeds the rows that have no embedding, or with force all of them, in short transactions; run it as the table''s owner, whose triggers fire';

CREATE FUNCTION embed_backfill_step(target pg_catalog.regclass, batch_size pg_catalog.int4 DEFAULT 256,
    embedding pg_catalog.name DEFAULT NULL)
  RETURNS pg_catalog.int8
  LANGUAGE plpgsql
AS $body$
DECLARE
  jobs @extschema@.embed_backfill_job[] := @extschema@.embed_backfill_jobs(target, batch_size, false, embedding);
  job @extschema@.embed_backfill_job;
  until pg_catalog.timestamptz := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) '0.75 seconds'::pg_catalog.interval;
BEGIN
  FOR i IN 1 .. pg_catalog.cardinality(jobs) LOOP
    job := @extschema@.embed_backfill_anywhere(jobs[i]);
    -- One pass, up to the first rows; small batches of them until a second or batch_size is reached.
    LOOP
      job := @extschema@.embed_backfill_batch(job);
      EXIT WHEN job.reading IS NULL;
      job.batch_size := batch_size OPERATOR(pg_catalog.-) job.rows::pg_catalog.int4;
      EXIT WHEN job.batch_size OPERATOR(pg_catalog.<=) 0
        OR job.rows OPERATOR(pg_catalog.>) 0 AND pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) until;
    END LOOP;
    IF job.rows OPERATOR(pg_catalog.>) 0 THEN
      RETURN job.rows;
    END IF;
    jobs[i] := job;
  END LOOP;
  -- Nothing was embedded; perhaps because nothing that is missing can be.
  PERFORM @extschema@.embed_backfill_end(jobs);
  RETURN 0;
END
$body$;
COMMENT ON FUNCTION embed_backfill_step(pg_catalog.regclass, pg_catalog.int4, pg_catalog.name) IS
  'embeds one batch of the rows that have no embedding, in the caller''s transaction; returns how many, 0 = none is missing; run it as the table''s owner, whose triggers fire';

-- A step does not know where the last one ended. Starting at random, it rarely has much of the table
-- that is done already before it.
CREATE FUNCTION embed_backfill_anywhere(job @extschema@.embed_backfill_job) RETURNS @extschema@.embed_backfill_job
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  n int := cardinality(job.leaves);
  first int := 1 + floor(random() * n);
BEGIN
  IF n > 0 THEN
    job.wrap := floor(random() * pg_relation_size(job.leaves[first], 'main') / current_setting('block_size')::int8);
    job.at := format('(%s,0)', coalesce(job.wrap, 0))::tid;
    job.leaves := job.leaves[first:] || job.leaves[:first];
  END IF;
  RETURN job;
END
$body$;
COMMENT ON FUNCTION embed_backfill_anywhere(@extschema@.embed_backfill_job) IS
  'part of embed_backfill: lets a step begin at any block';

-- How an embedding column is doing.

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
  ours record;
  here text := quote_literal(target);
  only_named text;
  gone name[];
  vec text := @extschema@.gte_small_vector_schema();
BEGIN
  BEGIN
    loaded := (SELECT m.fingerprint FROM @extschema@.embed_model() m);
  EXCEPTION WHEN OTHERS THEN
    -- No model, or a broken one: embed_model() says what is wrong, to those who may know.
  END;
  FOR ours IN
    SELECT DISTINCT ON (c.embedding) c.*, k.relkind FROM @extschema@.embedding_columns(target) c
      JOIN pg_class k ON k.oid = target
     ORDER BY c.embedding, c.trigger_name DESC
  LOOP
    embedding := ours.embedding;
    filled_with := ours.note ->> 'fingerprint';
    gone := @extschema@.embedding_columns_gone(target, embedding || ours.content);
    IF gone IS NOT NULL THEN
      rows := NULL; embedded := NULL; missing := NULL; stale := NULL;
      state := 'broken';
      index_present := false;
      trigger_enabled := ours.trigger_enabled;
      hints := ARRAY[format('there is no column %s: SELECT enable_semantic_search(%s, ...) with the columns as they are '
                            'called now, or DROP TRIGGER %I ON %s',
                            (SELECT string_agg(quote_ident(g), ', ') FROM unnest(gone) g), here, ours.trigger_name, target)];
      RETURN NEXT;
      CONTINUE;
    END IF;
    EXECUTE format('SELECT count(*), count(t.%1$I), count(*) FILTER (WHERE t.%1$I IS NULL AND (%2$s)) FROM %3$s %4$s AS t',
                   embedding, (SELECT string_agg(format('t.%I IS NOT NULL', c), ' OR ') FROM unnest(ours.content) c),
                   CASE WHEN ours.relkind = 'p' THEN '' ELSE 'ONLY' END, target)
       INTO rows, embedded, missing;
    state := CASE
      WHEN ours.note ? 'force' THEN 're-embedding'
      WHEN embedded = 0 THEN 'empty'
      WHEN ours.note -> 'outdated' = 'true' THEN 'stale'
      WHEN ours.note -> 'mixed' = 'true' THEN 'mixed'
      WHEN filled_with IS NULL OR loaded IS NULL THEN 'unknown'
      WHEN filled_with = loaded THEN 'current'
      ELSE 'stale' END;
    stale := CASE WHEN state IN ('stale', 'mixed', 're-embedding') THEN embedded
                  WHEN state <> 'unknown' THEN 0 END;
    -- Of a partitioned table, an index on the whole of it; a part of the rows is not enough. Searches order by
    -- the inner product, which no index of another operator class serves.
    index_present := EXISTS (
      SELECT FROM pg_index i JOIN pg_opclass c ON c.oid = i.indclass[0] JOIN pg_am m ON m.oid = c.opcmethod
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
       WHERE i.indrelid = target AND i.indisvalid AND i.indpred IS NULL
         AND c.opcname = 'vector_ip_ops' AND m.amname IN ('hnsw', 'ivfflat') AND a.attname = embedding);
    -- A partition's trigger can be disabled alone.
    trigger_enabled := ours.trigger_enabled AND NOT EXISTS (
      WITH RECURSIVE clones (oid, enabled) AS (
        SELECT t.oid, t.tgenabled FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname = ours.trigger_name
         UNION ALL
        SELECT t.oid, t.tgenabled FROM clones c JOIN pg_trigger t ON t.tgparentid = c.oid)
      SELECT FROM clones c WHERE c.enabled NOT IN ('O', 'A'));

    only_named := CASE WHEN (SELECT count(DISTINCT c.embedding) FROM @extschema@.embedding_columns(target) c) > 1
                       THEN format(', embedding => %L', embedding) ELSE '' END;
    hints := array_remove(ARRAY[
      CASE WHEN row_security_active(target) THEN
        format('row-level security applies, and only the rows that %I may see were counted', current_user) END,
      CASE WHEN loaded IS NULL THEN 'no model could be loaded: SELECT * FROM embed_model() says why' END,
      CASE WHEN NOT trigger_enabled THEN
        format('new rows are not embedded: ALTER TABLE %s ENABLE TRIGGER %I', target, ours.trigger_name) END,
      CASE WHEN state IN ('stale', 'mixed', 're-embedding') OR state = 'unknown' AND loaded IS NOT NULL THEN
        format('%s: CALL embed_backfill(%s, force => true%s)',
               CASE state WHEN 'stale' THEN format('the embeddings are of %s',
                 CASE WHEN ours.note -> 'outdated' = 'true' THEN 'other columns' ELSE 'another model' END)
                          WHEN 'mixed' THEN 'the embeddings are of several models'
                          WHEN 'unknown' THEN 'nobody noted which model the embeddings are of; if it was another'
                          ELSE 'all rows are being embedded again; if that was interrupted' END,
               here, only_named)
           WHEN missing > 0 THEN
        format('%s rows have no embedding: CALL embed_backfill(%s%s)', missing, here, only_named) END,
      CASE WHEN NOT index_present THEN
        format('searches read the whole table: CREATE INDEX ON %s USING hnsw (%I %s.vector_ip_ops)', target, embedding, vec) END
    ], NULL);
    RETURN NEXT;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION embedding_status(pg_catalog.regclass) IS
  'for each embedding column of a table: rows with and without embedding, whose model they are of, index, trigger, and what to do';

-- Whether vectors are those of their text, and where similarity begins.

-- Rows at random: all of a small table, else of as many blocks as hold three times as many rows as
-- are wanted, of which the caller takes some of each block.
CREATE FUNCTION embed_sample(target pg_catalog.regclass, sample pg_catalog.int4) RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  estimated float8;
  kind "char";
BEGIN
  SELECT c.relkind INTO kind FROM pg_class c WHERE c.oid = target;
  -- As the planner does it: the density of rows at the last ANALYZE, the blocks of today. Without an
  -- ANALYZE three a block, which is few beside vectors of 1.5 kB, and so errs towards too many.
  SELECT sum(CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN c.reltuples / c.relpages ELSE 3 END
             * (pg_relation_size(c.oid, 'main') / current_setting('block_size')::int8))
    INTO estimated FROM pg_class c WHERE c.oid = ANY (@extschema@.embed_backfill_leaves(target));
  RETURN format('%s %s AS t%s', CASE WHEN kind = 'p' THEN '' ELSE 'ONLY' END, target,
                CASE WHEN estimated > 3.0 * sample THEN format(' TABLESAMPLE SYSTEM (%s)', 300.0 * sample / estimated) END);
END
$body$;
COMMENT ON FUNCTION embed_sample(pg_catalog.regclass, pg_catalog.int4) IS
  'part of embed_verify: FROM item for a random sample of a table';

-- A vector counts as that of its text from a cosine of 0.999 on. The same text differs by less than
-- 0.0001 between f32 and bf16 and between CPUs, and another model's vector is far away; where another
-- text's vector is nearer than that, no search can tell the two apart.
CREATE FUNCTION embed_verify(
    target pg_catalog.regclass,
    sample pg_catalog.int4 DEFAULT 1000,
    INOUT embedding pg_catalog.name DEFAULT NULL,
    OUT checked pg_catalog.int8,
    OUT wrong pg_catalog.int8,
    OUT missing pg_catalog.int8,
    OUT examples pg_catalog.text[])
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  ours record;
  vec text := @extschema@.gte_small_vector_schema();
  -- A vector of a long text is right if it is that of its beginning, also where new ones are refused.
  on_truncate text := current_setting('gte_small.on_truncate', true);
BEGIN
  IF sample IS NULL OR sample < 1 THEN
    RAISE EXCEPTION 'sample is %', coalesce(sample::text, 'NULL')
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Nothing was checked.', HINT = 'Check 1 or more rows.';
  END IF;
  IF row_security_active(target) THEN
    RAISE NOTICE 'row-level security applies to table %', target
      USING DETAIL = format('Only rows that %I may see are checked.', current_user);
  END IF;
  FOR ours IN SELECT * FROM @extschema@.embed_backfill_columns(target, embedding) LOOP
    embedding := ours.embedding;
    PERFORM set_config('gte_small.on_truncate', 'silent', true);
    EXECUTE format($sql$
      WITH sampled AS MATERIALIZED (
        SELECT row_number() OVER () AS n, s.*
          FROM (SELECT t.ctid AS place, t.tableoid AS leaf, %1$s AS text, t.%2$I AS stored
                  FROM %3$s WHERE %4$s ORDER BY random() LIMIT $1) s),
      batches AS (
        SELECT array_agg(n ORDER BY n) AS n, array_agg(text ORDER BY n) AS texts FROM sampled GROUP BY (n - 1) / 64),
      fresh AS (
        SELECT unnest(b.n) AS n, unnest(%5$s.embed(b.texts)) AS v FROM batches b),
      compared AS (
        SELECT s.*, CASE WHEN s.text IS NULL THEN 'wrong' WHEN s.stored IS NULL THEN 'missing'
                         WHEN %6$s.vector_dims(s.stored) <> %6$s.vector_dims(f.v) THEN 'wrong'
                         WHEN %6$s.cosine_distance(s.stored, f.v) <= 0.001 THEN 'right' ELSE 'wrong' END AS verdict
          FROM sampled s JOIN fresh f USING (n))
      SELECT count(*), count(*) FILTER (WHERE verdict = 'wrong'), count(*) FILTER (WHERE verdict = 'missing'),
             (array_agg(leaf::regclass || ' ' || place ORDER BY leaf, place) FILTER (WHERE verdict = 'wrong'))[:5]
        FROM compared $sql$,
      @extschema@.embed_backfill_text(ours.content, 't'), embedding, @extschema@.embed_sample(target, sample),
      @extschema@.embed_backfill_condition('all', embedding, ours.content, 't'), '@extschema@', vec)
      INTO checked, wrong, missing, examples USING sample;
    PERFORM set_config('gte_small.on_truncate', on_truncate, true);
    RETURN NEXT;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION embed_verify(pg_catalog.regclass, pg_catalog.int4, pg_catalog.name) IS
  'embeds a random sample of rows again and counts those whose vector is not that of their text (cosine below 0.999)';

CREATE FUNCTION suggest_threshold(target pg_catalog.regclass, embedding pg_catalog.name DEFAULT NULL)
  RETURNS pg_catalog.float8
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  columns name[];
  threshold float8;
  used int8;
  vec text := @extschema@.gte_small_vector_schema();
BEGIN
  columns := ARRAY(SELECT c.embedding FROM @extschema@.embed_backfill_columns(target, embedding) c);
  IF cardinality(columns) > 1 THEN
    RAISE EXCEPTION 'table % has several embedding columns', target
      USING ERRCODE = 'ambiguous_column', DETAIL = 'A threshold is one column''s.',
            HINT = format('Name one of them: suggest_threshold(%L, %L).', target, columns[1]);
  END IF;
  -- 400 rows are 79,800 pairs: 30 ms, and the figure moves by 0.01 from call to call.
  EXECUTE format($sql$
    WITH v AS MATERIALIZED (
      SELECT row_number() OVER () AS n, s.e
        FROM (SELECT t.%1$I AS e FROM %2$s WHERE t.%1$I IS NOT NULL ORDER BY random() LIMIT 400) s)
    SELECT (SELECT count(*) FROM v),
           (SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY 1 - %3$s.cosine_distance(a.e, b.e))
              FROM v a JOIN v b ON a.n < b.n) $sql$,
    columns[1], @extschema@.embed_sample(target, 400), vec) INTO used, threshold;
  IF used < 20 THEN
    RAISE NOTICE '% has % embeddings, too few to suggest a threshold', target, used
      USING HINT = 'Begin with (embed_model()).suggested_threshold, or ask again when there are more rows.';
    RETURN NULL;
  END IF;
  RETURN round(threshold::numeric, 2);
END
$body$;
COMMENT ON FUNCTION suggest_threshold(pg_catalog.regclass, pg_catalog.name) IS
  'the cosine that 99 of 100 random pairs of a table''s rows stay below, from a sample of 400 rows';

-- Long texts: how many tokens they have, and parts that the model can read.

-- COST 1000: a page of text takes some 100 µs, a hundredth of a forward pass at the least.
CREATE FUNCTION token_count(content pg_catalog.text) RETURNS pg_catalog.int4
  AS 'MODULE_PATHNAME', 'token_count_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION token_count(pg_catalog.text) IS
  'tokens of a text as the model counts them, special tokens included, without a limit';

-- ROWS 10: a text of ten pages.
CREATE FUNCTION chunk_text(
    content pg_catalog.text,
    max_tokens pg_catalog.int4 DEFAULT 512,
    overlap pg_catalog.int4 DEFAULT 0)
  RETURNS TABLE (
    ordinal pg_catalog.int4,
    chunk pg_catalog.text,
    start pg_catalog.int4,
    tokens pg_catalog.int4)
  AS 'MODULE_PATHNAME', 'chunk_text_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10000 ROWS 10;
COMMENT ON FUNCTION chunk_text(pg_catalog.text, pg_catalog.int4, pg_catalog.int4) IS
  'a long text as parts of at most max_tokens tokens, cut between sentences where possible; start counts characters from 1';

-- What is loaded, and what it has done.

CREATE FUNCTION embed_model(
    OUT name pg_catalog.text,
    OUT fingerprint pg_catalog.text,
    OUT dims pg_catalog.int4,
    OUT max_tokens pg_catalog.int4,
    OUT suggested_threshold pg_catalog.float8,
    OUT "precision" pg_catalog.text,
    OUT kernels pg_catalog.text,
    OUT threads pg_catalog.int4,
    OUT preloaded pg_catalog.bool,
    OUT load_seconds pg_catalog.float8,
    OUT source pg_catalog.text)
  AS 'MODULE_PATHNAME', 'embed_model_gte_small'
  LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION embed_model() IS
  'the model this session embeds with; its directory only for members of pg_read_all_settings';

CREATE FUNCTION embed_stats(
    OUT calls pg_catalog.int8,
    OUT memo_hits pg_catalog.int8,
    OUT model_runs pg_catalog.int8,
    OUT texts pg_catalog.int8,
    OUT tokens pg_catalog.int8,
    OUT truncated_texts pg_catalog.int8,
    OUT model_seconds pg_catalog.float8)
  AS 'MODULE_PATHNAME', 'embed_stats_gte_small'
  LANGUAGE c VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION embed_stats() IS
  'what this session has embedded so far: texts asked for, memo hits, forward passes, texts and tokens the model read, truncated texts, seconds';
