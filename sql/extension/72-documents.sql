-- Long documents in any table: what enable_document_search() makes, how it is known, and what it refuses.
--
-- The chunks of a table's documents are in a second table, which is known by its foreign key and its trigger, also
-- where comments were dropped. Names of columns come from the foreign key, which follows renames.

CREATE FUNCTION gte_small.token_count(content pg_catalog.text) RETURNS pg_catalog.int4
  AS 'MODULE_PATHNAME', 'token_count_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION gte_small.token_count(pg_catalog.text) IS
  'twin of token_count(text)';

-- What stands before each chunk of a document when it is embedded: "title:". BERT's tokenizers read the newline
-- behind it as a space. A quarter of the model's window at most.
CREATE FUNCTION gte_small.heading(content pg_catalog.text) RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  blanks CONSTANT text := E' \t\r\n';
  heading text := nullif(btrim(content, blanks), '');
BEGIN
  IF heading IS NULL THEN
    RETURN NULL;
  END IF;
  RETURN rtrim((SELECT c.chunk FROM gte_small.chunk_text(heading, greatest(8, (SELECT m.max_tokens / 4 FROM gte_small.embed_model() m))) c
                 WHERE c.ordinal = 1), blanks) || ':';
END
$body$;
COMMENT ON FUNCTION gte_small.heading(pg_catalog.text) IS
  'part of document search: what is embedded before each chunk of a document';

-- The tokens that are left for a chunk.
CREATE FUNCTION gte_small.room_below(heading pg_catalog.text) RETURNS pg_catalog.int4
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
BEGIN
  -- chunk_text takes a larger number as the model's limit.
  RETURN CASE WHEN heading IS NULL THEN 2147483647
              ELSE greatest(8, (SELECT m.max_tokens FROM gte_small.embed_model() m) - gte_small.token_count(heading) + 2) END;
END
$body$;
COMMENT ON FUNCTION gte_small.room_below(pg_catalog.text) IS
  'part of document search: the most tokens of a chunk that is embedded with a heading';

-- No column's mark is like this, because the name in it would be quoted.
CREATE FUNCTION gte_small.document_mark() RETURNS pg_catalog.text
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
  AS $body$ SELECT 'gte-small: for documents in chunks' $body$;
COMMENT ON FUNCTION gte_small.document_mark() IS
  'part of enable_document_search: the comment by which its objects are known';

-- The documents of a chunks table, by its foreign key: the key columns on both sides and the condition that joins
-- a chunk c and its document e. The operators are those of the key, wherever they are. The owner may have added a foreign
-- key. On a shard it can be the older one, because a move makes them anew: the documents have the trigger.
CREATE FUNCTION gte_small.document_keys(
    chunks pg_catalog.regclass, OUT target pg_catalog.regclass, OUT keys pg_catalog.name[], OUT chunk_keys pg_catalog.name[],
    OUT operators pg_catalog.text[], OUT joined pg_catalog.text)
  LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT f.confrelid::regclass, array_agg(a.attname ORDER BY k.n), array_agg(b.attname ORDER BY k.n),
         array_agg(format('operator(%I.%s)', s.nspname, o.oprname) ORDER BY k.n),
         string_agg(format('e.%I operator(%I.%s) c.%I', a.attname, s.nspname, o.oprname, b.attname), ' and ' ORDER BY k.n)
    FROM (SELECT f.* FROM pg_constraint f JOIN pg_constraint p ON p.conrelid = f.conrelid AND p.contype = 'p' AND f.conkey <@ p.conkey
           WHERE f.conrelid = chunks AND f.contype = 'f' AND f.conparentid = 0
           ORDER BY EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = f.confrelid AND starts_with(t.tgname::text, 'gte_small_chunks')) DESC, f.oid
           LIMIT 1) f
    CROSS JOIN unnest(f.confkey, f.conkey, f.conpfeqop) WITH ORDINALITY AS k (key, chunk_key, equals, n)
    JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.key
    JOIN pg_attribute b ON b.attrelid = f.conrelid AND b.attnum = k.chunk_key
    JOIN pg_operator o ON o.oid = k.equals JOIN pg_namespace s ON s.oid = o.oprnamespace
   GROUP BY f.confrelid
$body$;
COMMENT ON FUNCTION gte_small.document_keys(pg_catalog.regclass) IS
  'part of document search: the table that a chunks table belongs to, and how their rows are joined';

-- The table of a table's chunks, by its foreign key and its trigger, which follow renames. It belongs to the owner of
-- the documents, or of the trigger function where the documents have changed theirs; "owner" wants a certain one. Any
-- role with the privilege REFERENCES can make a table of this form, and its triggers would run as whoever writes it.
-- The triggers of the foreign key are found by an index; constraints are not.
CREATE FUNCTION gte_small.chunks_of(target pg_catalog.regclass, owner pg_catalog.name DEFAULT NULL) RETURNS pg_catalog.regclass
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
BEGIN
  RETURN (
    SELECT c.oid
      FROM pg_trigger r JOIN pg_constraint f ON f.oid = r.tgconstraint AND f.contype = 'f' AND f.confrelid = target
      JOIN pg_class c ON c.oid = f.conrelid JOIN pg_class d ON d.oid = target
     WHERE r.tgrelid = target AND r.tgisinternal
       AND CASE WHEN owner IS NOT NULL THEN pg_get_userbyid(c.relowner) = owner
                ELSE c.relowner = d.relowner
                  OR EXISTS (SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                              WHERE t.tgrelid = target AND t.tgname = 'gte_small_chunks' AND p.proowner = c.relowner) END
       -- A script that brings an older form over has dropped its trigger.
       AND (EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = 'gte_small.accept_chunk'::regproc)
            OR starts_with(obj_description(c.oid, 'pg_class'), gte_small.document_mark()))
     ORDER BY c.relowner <> d.relowner, c.oid LIMIT 1);
END
$body$;
COMMENT ON FUNCTION gte_small.chunks_of(pg_catalog.regclass, pg_catalog.name) IS
  'part of document search: the table of the chunks of a table';

-- What the columns in a trigger's arguments are called now. The comment of the trigger has their numbers.
CREATE FUNCTION gte_small.document_columns(target pg_catalog.regclass, names pg_catalog.name[]) RETURNS pg_catalog.name[]
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  comment text;
  noted jsonb;
BEGIN
  IF NOT EXISTS (SELECT FROM unnest(names) AS u (c)
                  WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = u.c AND NOT a.attisdropped)) THEN
    RETURN names;
  END IF;
  -- A trigger of a partition is a clone without a comment.
  SELECT obj_description(t.oid, 'pg_trigger') INTO comment
    FROM (SELECT a.relid::oid FROM pg_partition_ancestors(target) a UNION SELECT target::oid) AS a (relid)
    JOIN pg_trigger t ON t.tgrelid = a.relid AND t.tgname = 'gte_small_chunks' AND t.tgparentid = 0;
  BEGIN
    noted := substring(comment FROM '{.*')::jsonb;
  EXCEPTION WHEN invalid_text_representation OR untranslatable_character THEN
    -- Somebody edited the comment: nothing is known.
  END;
  RETURN gte_small.names_now(target, names, noted);
END
$body$;
COMMENT ON FUNCTION gte_small.document_columns(pg_catalog.regclass, pg_catalog.name[]) IS
  'part of document search: the names of columns after a rename';

-- Document search on a table, as it is: NULL where there is none. The arguments of the trigger are the columns of
-- content and context and a chosen name of the search function; "arguments" has the names of today.
CREATE FUNCTION gte_small.document_search(
    target pg_catalog.regclass, OUT chunks pg_catalog.regclass, OUT trigger_function pg_catalog.regprocedure,
    OUT arguments pg_catalog.text[], OUT named pg_catalog.text[], OUT search_functions pg_catalog.regprocedure[])
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
BEGIN
  SELECT t.tgfoid::regprocedure, a.arguments INTO trigger_function, named
    FROM pg_trigger t
    CROSS JOIN LATERAL (
      SELECT array_agg(convert_from(decode(replace(hex, ' ', ''), 'hex'), getdatabaseencoding()) ORDER BY n)
        FROM regexp_split_to_table(regexp_replace(encode(t.tgargs, 'hex'), '(..)', '\1 ', 'g'), '00 ') WITH ORDINALITY AS u (hex, n)
       WHERE n <= t.tgnargs) AS a (arguments)
   WHERE t.tgrelid = document_search.target AND t.tgname = 'gte_small_chunks' AND t.tgnargs = 3 AND NOT t.tgisinternal;
  arguments := ARRAY[gte_small.document_columns(target, named[1]::name[])::text, gte_small.document_columns(target, named[2]::name[])::text, named[3]];
  IF named IS NULL THEN
    arguments := NULL;
  END IF;
  chunks := gte_small.chunks_of(target);
  search_functions := ARRAY(
    SELECT p.oid FROM pg_proc p JOIN pg_class c ON c.oid = document_search.target AND c.reltype = ANY (p.proallargtypes)
     -- Of the owner: a comment alone would let any role put its function in the place of the search.
     WHERE (p.proowner = c.relowner OR p.proowner = (SELECT f.proowner FROM pg_proc f WHERE f.oid = trigger_function))
       AND CASE WHEN obj_description(p.oid, 'pg_proc') IS NULL THEN p.prosrc LIKE '%gte\_small.documents\_query(%'
                ELSE starts_with(obj_description(p.oid, 'pg_proc'), gte_small.document_mark()) END
     ORDER BY p.oid);
END
$body$;
COMMENT ON FUNCTION gte_small.document_search(pg_catalog.regclass) IS
  'part of enable_document_search: what was made for a table';

-- For hints: the statement that enables the search of a table as it was enabled.
CREATE FUNCTION gte_small.enable_again(target pg_catalog.regclass, content pg_catalog.text, context pg_catalog.text) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT format('SELECT enable_document_search(%L, %L%s);', coalesce(pg_partition_root(target), target),
                coalesce(nullif(content, '{}'), '...'), CASE WHEN context <> '{}' THEN format(', %L', context) END)
$body$;
COMMENT ON FUNCTION gte_small.enable_again(pg_catalog.regclass, pg_catalog.text, pg_catalog.text) IS
  'part of document search: the statement that enables it again';

CREATE FUNCTION gte_small.has_document_search(target pg_catalog.regclass) RETURNS pg_catalog.bool
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
  AS $body$ SELECT d.trigger_function IS NOT NULL FROM gte_small.document_search(target) d $body$;
COMMENT ON FUNCTION gte_small.has_document_search(pg_catalog.regclass) IS
  'part of enable_semantic_search: whether a table has document search';

CREATE FUNCTION gte_small.is_chunks_table(target pg_catalog.regclass) RETURNS pg_catalog.bool
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT EXISTS (SELECT FROM pg_constraint f CROSS JOIN LATERAL gte_small.document_search(f.confrelid) d
                  WHERE f.conrelid = target AND f.contype = 'f' AND f.conparentid = 0 AND d.chunks = target)
$body$;
COMMENT ON FUNCTION gte_small.is_chunks_table(pg_catalog.regclass) IS
  'part of refresh_semantic_search: whether a table holds the chunks of another table''s documents';

-- Refuses a table that it can't work with, before anything is made.
CREATE FUNCTION gte_small.check_documents(target pg_catalog.regclass, content pg_catalog.name[], context pg_catalog.name[])
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  relation pg_class;
  source name;
  searched name;
BEGIN
  SELECT * INTO relation FROM pg_class WHERE oid = target;
  IF target IS NULL OR content IS NULL THEN
    RAISE EXCEPTION 'table and columns must not be NULL'
      USING ERRCODE = 'null_value_not_allowed', DETAIL = 'Nothing was made.',
            HINT = 'Name a table, as in enable_document_search(''manuals''), and its columns.';
  ELSIF relation.relkind IS NULL THEN
    RAISE EXCEPTION 'no relation has the OID %', target::oid
      USING ERRCODE = 'undefined_table', DETAIL = 'Nothing was made.', HINT = 'Name the table.';
  ELSIF relation.relkind NOT IN ('r', 'p') THEN
    RAISE EXCEPTION '% is not a table', target
      USING ERRCODE = 'wrong_object_type', DETAIL = 'A trigger that keeps the chunks needs a table; nothing was made.',
            HINT = 'Enable the search on the table behind it, or on a table that holds a copy of the text.';
  ELSIF relation.relnamespace IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace, 'information_schema'::regnamespace) THEN
    RAISE EXCEPTION '% is a system table', target
      USING ERRCODE = 'wrong_object_type', DETAIL = 'Nothing was made.', HINT = 'Use a table of your own.';
  ELSIF gte_small.is_shard(target) THEN
    RAISE EXCEPTION 'table % is a shard of a distributed table', target
      USING ERRCODE = 'wrong_object_type', DETAIL = 'Nothing was made.', HINT = 'Enable the search on the distributed table.';
  ELSIF relation.relispartition THEN
    RAISE EXCEPTION 'table % is a partition', target
      USING ERRCODE = 'wrong_object_type', DETAIL = 'A row that moves to another partition keeps its chunks only if all partitions have the same; nothing was made.',
            HINT = format('Enable the search on the partitioned table: enable_document_search(%L).', pg_partition_root(target));
  ELSIF NOT pg_has_role(relation.relowner, 'USAGE') THEN
    RAISE EXCEPTION 'must be owner of table %', target
      USING ERRCODE = 'insufficient_privilege', DETAIL = 'Nothing was made.',
            HINT = format('Ask a member of role %s.', relation.relowner::regrole);
  ELSIF gte_small.is_distributed(target) AND NOT (current_user = pg_get_userbyid(relation.relowner)) THEN
    RAISE EXCEPTION 'role % is not the owner of the distributed table %', quote_ident(current_user), target
      USING ERRCODE = 'insufficient_privilege', DETAIL = 'The chunks of its rows are made on the workers as one role, the owner; nothing was made.',
            HINT = format('SET ROLE %s; %s RESET ROLE;', relation.relowner::regrole, gte_small.enable_again(target, content::text, coalesce(context, '{}')::text));
  ELSIF gte_small.distribution(target) = 'other' THEN
    RAISE EXCEPTION 'table % is distributed by append or by range', target
      USING ERRCODE = 'feature_not_supported', DETAIL = 'Chunks are on the server of their document, which takes a distribution by hash; nothing was made.',
            HINT = 'Distribute it by hash: create_distributed_table() does so.';
  ELSIF NOT has_schema_privilege(relation.relnamespace, 'CREATE') THEN
    RAISE EXCEPTION 'permission denied for schema %', relation.relnamespace::regnamespace
      USING ERRCODE = 'insufficient_privilege', DETAIL = 'The chunks and the search stand in the table''s schema; nothing was made.',
            HINT = format('GRANT CREATE ON SCHEMA %s TO %I.', relation.relnamespace::regnamespace, current_user);
  END IF;
  -- One session at a time. The stronger lock that is needed is taken once that is known.
  PERFORM gte_small.lock_for_change(target, 'SHARE UPDATE EXCLUSIVE', relation.relkind = 'p');

  SELECT c.embedding INTO searched FROM gte_small.embedding_columns(target) c
   WHERE EXISTS (SELECT FROM gte_small.made_functions(target, c.embedding)) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'table % has semantic search by its rows', target
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'Both searches would be called query_..., and would answer differently: one reads the beginning of each text, the other all of it. Nothing was made.',
            HINT = format('SELECT disable_semantic_search(%L, %L); and enable the search of documents again.', target, searched);
  END IF;
  IF gte_small.is_chunks_table(target) THEN
    RAISE EXCEPTION 'table % holds the chunks of documents', target
      USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'Nothing was made.', HINT = 'Search the table of the documents.';
  END IF;

  IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_constraint p ON p.conindid = i.indexrelid AND p.contype = 'p'
                  WHERE i.indrelid = target AND i.indisprimary AND i.indimmediate AND NOT i.indisexclusion) THEN
    RAISE EXCEPTION 'table % has no primary key', target
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'Chunks belong to a document by its primary key, of one or several columns of any type, which must not be deferrable; nothing was made.',
            HINT = format('ALTER TABLE %s ADD PRIMARY KEY (...), and enable the search again.', target);
  END IF;

  IF cardinality(gte_small.key_columns(target)) >= current_setting('max_index_keys')::int THEN
    RAISE EXCEPTION 'the primary key of table % has % columns', target, cardinality(gte_small.key_columns(target))
      USING ERRCODE = 'program_limit_exceeded', DETAIL = 'That of its chunks would have one more, and PostgreSQL allows no more; nothing was made.',
            HINT = 'Give the table a shorter primary key.';
  END IF;

  IF array_ndims(content) IS DISTINCT FROM 1 OR array_position(content, NULL) > 0 THEN
    RAISE EXCEPTION 'no text column is named'
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'There would be nothing to embed; nothing was made.',
            HINT = 'Name the text columns: enable_document_search(''manuals'', ''body'', ''title'').';
  END IF;
  FOREACH source IN ARRAY content || coalesce(context, '{}') LOOP
    IF gte_small.check_text_column(target, source) = 'v' THEN
      RAISE EXCEPTION 'column "%" of table % is a virtual generated column', source, target
        USING ERRCODE = 'generated_always', DETAIL = 'A trigger does not see its value; nothing was made.',
              HINT = 'Make it STORED, or name the columns it is generated from.';
    END IF;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION gte_small.check_documents(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name[]) IS
  'part of enable_document_search: refuses a table it can''t work with';

-- The names of the chunks table, of its trigger function and of the search function; refuses those that are too
-- long or taken.
CREATE FUNCTION gte_small.document_names(
    target pg_catalog.regclass, chunks_table pg_catalog.name, search_function pg_catalog.name,
    OUT chunks pg_catalog.text, OUT trigger_function pg_catalog.text, OUT query pg_catalog.text)
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  here record;
  made record;
  one text;
  parameter text;
  existing oid;
BEGIN
  SELECT n.nspname, c.relname INTO here FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target;
  SELECT * INTO made FROM gte_small.document_search(target);
  FOR one, parameter IN VALUES
    (coalesce(chunks_table::text, here.relname || '_chunks'), 'chunks_table => ''manual_chunks'''),
    ('chunk_' || here.relname, NULL),
    (coalesce(search_function::text, 'query_' || here.relname), 'search_function => ''query_manuals''')
  LOOP
    IF octet_length(one) NOT BETWEEN 1 AND 63 THEN
      RAISE EXCEPTION 'name "%" has % bytes', one, octet_length(one)
        USING ERRCODE = 'name_too_long', DETAIL = 'A name has from 1 to 63 bytes; nothing was made.',
              HINT = coalesce(format('Choose another name: enable_document_search(..., %s).', parameter), 'Give the table a shorter name.');
    END IF;
  END LOOP;
  -- An existing table keeps its name, also after a rename.
  chunks := coalesce((SELECT q.tbl FROM gte_small.qualified(made.chunks) q),
                     format('%I.%I', here.nspname, coalesce(chunks_table::text, here.relname || '_chunks')));
  trigger_function := format('%I.%I', here.nspname, 'chunk_' || here.relname);
  query := format('%I.%I', here.nspname, coalesce(search_function::text, 'query_' || here.relname));

  existing := to_regclass(chunks);
  IF existing IS DISTINCT FROM made.chunks AND existing IS NOT NULL THEN
    RAISE EXCEPTION 'relation % exists and does not hold the chunks of this table', existing::regclass
      USING ERRCODE = 'duplicate_table', DETAIL = 'It was left as it is; nothing was made.',
            HINT = CASE WHEN starts_with(obj_description(existing, 'pg_class'), gte_small.document_mark()) AND (SELECT d.target FROM gte_small.document_keys(existing) d) IS NULL
                          THEN format('Its documents were dropped. DROP TABLE %s; %sand enable the search again.', existing::regclass,
                                      (SELECT format('DROP FUNCTION %s; ', p.oid::regprocedure) FROM pg_proc p
                                        WHERE p.oid = to_regprocedure(trigger_function || '()') AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid)))
                        ELSE coalesce((SELECT format('If it did, give it its owner again: ALTER TABLE %s OWNER TO %s; ', existing::regclass, d.relowner::regrole)
                                         FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid JOIN pg_class d ON d.oid = f.confrelid
                                        WHERE f.conrelid = existing AND f.confrelid = target AND f.contype = 'f' AND c.relowner <> d.relowner LIMIT 1), '')
                             || 'Drop or rename it, or choose another name: enable_document_search(..., chunks_table => ''manual_chunks'').' END;
  END IF;
  existing := to_regprocedure(trigger_function || '()');
  IF existing IS NOT NULL AND existing IS DISTINCT FROM made.trigger_function THEN
    RAISE EXCEPTION 'function % exists and is not gte-small''s for this table', existing::regprocedure
      USING ERRCODE = 'duplicate_function', DETAIL = 'It was left as it is; nothing was made.',
            HINT = 'Drop or rename it, and enable the search again.';
  END IF;
  -- Any that could be called with the same arguments.
  FOR existing IN SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = here.nspname
                   WHERE p.proname = coalesce(search_function::text, 'query_' || here.relname) AND p.proargtypes[0] IN ('text'::regtype, 'varchar'::regtype) LOOP
    IF existing <> ALL (made.search_functions) THEN
      RAISE EXCEPTION 'function % exists and is not gte-small''s for this table', existing::regprocedure
        USING ERRCODE = 'duplicate_function', DETAIL = 'It was left as it is; nothing was made.',
              HINT = 'Drop or rename it, or choose another name: enable_document_search(..., search_function => ''query_manuals'').';
    END IF;
  END LOOP;
  FOR existing IN SELECT p.oid FROM pg_proc p WHERE p.oid = ANY (made.search_functions || made.trigger_function) AND NOT pg_has_role(p.proowner, 'USAGE')
                   UNION ALL SELECT NULL WHERE EXISTS (SELECT FROM pg_class c WHERE c.oid = made.chunks AND NOT pg_has_role(c.relowner, 'USAGE')) LOOP
    RAISE EXCEPTION 'must be owner of %', coalesce('function ' || existing::regprocedure, 'table ' || made.chunks)
      USING ERRCODE = 'insufficient_privilege', DETAIL = 'The table of the documents has changed its owner since; nothing was made.',
            HINT = CASE WHEN gte_small.is_distributed(target) THEN 'A superuser gives them to the owner of the documents: ALTER TABLE ... OWNER TO, ALTER FUNCTION ... OWNER TO.'
                        ELSE 'A superuser enables the search again.' END;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION gte_small.document_names(pg_catalog.regclass, pg_catalog.name, pg_catalog.name) IS
  'part of enable_document_search: the names of what it makes; refuses names that are taken';
