-- Document search on a table: enable_document_search() and disable_document_search().

-- Makes the chunks table. Only the owner has rights on it, and readers of the documents may read it: privileges
-- that ALTER DEFAULT PRIVILEGES gives to every new table would be rights to write other people's chunks.
CREATE FUNCTION gte_small.make_chunks(target pg_catalog.regclass, name pg_catalog.name) RETURNS pg_catalog.regclass
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  here record;
  k record;
  granted record;
  relation pg_class;
  chunks text;
BEGIN
  SELECT * INTO relation FROM pg_class WHERE oid = target;
  SELECT * INTO here FROM gte_small.qualified(target);
  chunks := format('%s.%I', here.schema_name, name);
  -- A long name would be cut short, and two could become one.
  SELECT string_agg(format('%I %s%s not null', u.called, format_type(a.atttypid, a.atttypmod),
                           (SELECT format(' collate %I.%I', n.nspname, c.collname) FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
                             WHERE c.oid = a.attcollation)), ', ' ORDER BY u.n) AS definitions,
         string_agg(quote_ident(u.called), ', ' ORDER BY u.n) AS names, string_agg(quote_ident(u.key), ', ' ORDER BY u.n) AS keys
    INTO k
    FROM (SELECT key, n, CASE WHEN max(octet_length(key::text)) OVER () > 54 THEN 'document_' || n ELSE 'document_' || key END AS called
            FROM unnest(gte_small.key_columns(target)) WITH ORDINALITY AS u (key, n)) AS u
    JOIN pg_attribute a ON a.attrelid = target AND a.attname = u.key;
  EXECUTE format('CREATE %sTABLE %s (%s, ordinal int not null, start int not null, content text not null, embedding %s.vector(384), '
                 'primary key (%s, ordinal))',
                 CASE relation.relpersistence WHEN 'u' THEN 'UNLOGGED ' ELSE '' END, chunks, k.definitions, gte_small.vector_schema(), k.names);
  PERFORM gte_small.distribute_chunks(target, chunks);
  EXECUTE format('ALTER TABLE %s ADD FOREIGN KEY (%s) REFERENCES %s (%s) %s', chunks, k.names, here.tbl, k.keys, gte_small.chunks_follow(target));
  FOR granted IN SELECT DISTINCT a.grantee FROM pg_class c CROSS JOIN aclexplode(c.relacl) a WHERE c.oid = chunks::regclass AND a.grantee <> c.relowner LOOP
    EXECUTE format('REVOKE ALL ON %s FROM %s CASCADE', chunks, CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END);
  END LOOP;
  FOR granted IN SELECT DISTINCT a.grantee FROM aclexplode(relation.relacl) a WHERE a.privilege_type = 'SELECT' AND a.grantee <> relation.relowner LOOP
    EXECUTE format('GRANT SELECT ON %s TO %s', chunks, CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END);
  END LOOP;
  RETURN chunks::regclass;
END
$body$;
COMMENT ON FUNCTION gte_small.make_chunks(pg_catalog.regclass, pg_catalog.name) IS
  'part of enable_document_search: makes the table of the chunks';

-- Rights on the chunks: a role that sees a document sees its chunks, and no policy lets anybody write them.
CREATE FUNCTION gte_small.protect_chunks(chunks pg_catalog.regclass) RETURNS pg_catalog.text[]
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  k record;
  owner oid;
  changed text[] := '{}';
BEGIN
  SELECT * INTO k FROM gte_small.document_keys(chunks);
  SELECT d.relowner INTO owner FROM pg_class d WHERE d.oid = k.target;
  IF EXISTS (SELECT FROM pg_class c WHERE c.oid = chunks AND NOT c.relrowsecurity) THEN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', chunks);
  END IF;
  IF EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = chunks AND p.polname = 'of_visible_documents' AND p.polcmd <> 'r') THEN
    EXECUTE format('DROP POLICY of_visible_documents ON %s', chunks);
  END IF;
  IF NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = chunks AND p.polname = 'of_visible_documents') THEN
    EXECUTE format('CREATE POLICY of_visible_documents ON %s AS PERMISSIVE FOR SELECT TO PUBLIC USING (%s)', chunks,
                   CASE WHEN gte_small.is_distributed(chunks) THEN gte_small.visible_on_shard(chunks)
                        ELSE (SELECT format('EXISTS (SELECT FROM %s e WHERE %s)', (SELECT q.rows_of FROM gte_small.qualified(k.target) q),
                                            string_agg(format('e.%I %s %I.%I', u.key, u.equals, c.relname, u.chunk_key), ' AND ' ORDER BY n))
                                FROM unnest(k.keys, k.chunk_keys, k.operators) WITH ORDINALITY AS u (key, chunk_key, equals, n), pg_class c
                               WHERE c.oid = chunks) END);
    changed := changed || format('policy of_visible_documents on %s', chunks);
  END IF;
  IF owner <> (SELECT c.relowner FROM pg_class c WHERE c.oid = chunks) THEN
    EXECUTE format('ALTER TABLE %s OWNER TO %s', chunks, owner::regrole);
  END IF;
  RETURN changed;
END
$body$;
COMMENT ON FUNCTION gte_small.protect_chunks(pg_catalog.regclass) IS
  'part of enable_document_search: row-level security and the owner of the chunks table';

-- The chunks of the rows that are there: of all rows after a change of the columns, otherwise of those without any.
-- They get no embedding, because this takes long: embed_backfill() commits in between.
--
-- A superuser who enables the search must not run what the owner attached to his tables: triggers, and the checks
-- of a domain. So this runs as the owner, in a function that is dropped at once.
CREATE FUNCTION gte_small.fill_chunks(
    chunks pg_catalog.regclass, content pg_catalog.name[], context pg_catalog.name[], everything pg_catalog.bool)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  k record;
  rows_of text;
  parts text;
  statements text;
  filler text;
  heading bool := context <> '{}';
  distributed CONSTANT bool := gte_small.is_distributed(chunks);
  deferred CONSTANT text := current_setting('gte_small.defer', true);
BEGIN
  SELECT * INTO k FROM gte_small.document_keys(chunks);
  rows_of := (SELECT q.rows_of FROM gte_small.qualified(k.target) q);
  -- A function that is joined runs once for each row.
  parts := format('CROSS JOIN LATERAL gte_small.heading(%s) AS h (heading) '
                  'CROSS JOIN LATERAL gte_small.chunk_text(%s, gte_small.room_below(h.heading)) n',
                  gte_small.text_of('e', context), gte_small.text_of('e', content));
  IF everything AND distributed THEN
    -- Their texts would travel to the coordinator to be compared.
    statements := format('DELETE FROM %s c;', chunks);
  ELSIF everything THEN
    statements := format('WITH e AS MATERIALIZED (SELECT %1$s, n.ordinal AS "gte ordinal", n.start AS "gte start", n.chunk AS "gte chunk", '
                         'h.heading AS "gte heading" FROM %2$s e %3$s) '
                         'DELETE FROM %4$s c WHERE NOT EXISTS (SELECT FROM e WHERE %5$s AND (e."gte ordinal", e."gte start") = (c.ordinal, c.start) '
                         'AND e."gte chunk" COLLATE "C" = c.content COLLATE "C" %6$s);',
                         (SELECT string_agg(format('e.%I', u.c), ', ' ORDER BY n) FROM unnest(k.keys) WITH ORDINALITY AS u (c, n)), rows_of, parts, chunks,
                         k.joined, CASE WHEN heading THEN 'AND c.heading COLLATE "C" IS NOT DISTINCT FROM e."gte heading" COLLATE "C"' END);
  END IF;
  IF NOT heading AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = chunks AND a.attname = 'heading' AND NOT a.attisdropped) THEN
    -- They were embedded with it.
    statements := concat(statements, format('DELETE FROM %s c WHERE c.heading IS NOT NULL;', chunks));
  END IF;
  statements := concat(statements, format(
    'INSERT INTO %1$s (%2$s, ordinal, start, content%3$s) SELECT %4$s, n.ordinal, n.start, n.chunk%5$s FROM %6$s e %7$s '
    'WHERE NOT EXISTS (SELECT 1 FROM %1$s c WHERE %8$s%9$s)%10$s;',
    chunks, (SELECT string_agg(quote_ident(u.c), ', ' ORDER BY n) FROM unnest(k.chunk_keys) WITH ORDINALITY AS u (c, n)),
    CASE WHEN heading THEN ', heading' END,
    (SELECT string_agg(format('e.%I', u.c), ', ' ORDER BY n) FROM unnest(k.keys) WITH ORDINALITY AS u (c, n)),
    CASE WHEN heading THEN ', h.heading' END, rows_of, parts, k.joined, CASE WHEN everything THEN ' AND c.ordinal = n.ordinal' END,
    -- Without a distribution column, Citus 14 makes this statement with a syntax error, unless it collects the rows on
    -- the coordinator. A volatile function makes it do so.
    CASE WHEN gte_small.distribution(chunks) = 'single' THEN ' AND random() >= 0' END));

  IF distributed THEN
    PERFORM gte_small.fill_shards(statements);
    RETURN;
  END IF;
  filler := format('%s.%I', (SELECT q.schema_name FROM gte_small.qualified(chunks) q), 'gte_small_fill_' || chunks::oid);
  EXECUTE format('CREATE FUNCTION %s() RETURNS pg_catalog.void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %L',
                 filler, 'begin ' || statements || ' end');
  EXECUTE format('REVOKE ALL ON FUNCTION %s() FROM PUBLIC', filler);
  EXECUTE format('ALTER FUNCTION %s() OWNER TO %s', filler, (SELECT c.relowner::regrole FROM pg_class c WHERE c.oid = chunks));
  PERFORM set_config('gte_small.defer', 'on', true);
  EXECUTE format('SELECT %s()', filler);
  PERFORM set_config('gte_small.defer', coalesce(deferred, 'off'), true);
  EXECUTE format('DROP FUNCTION %s()', filler);
END
$body$;
COMMENT ON FUNCTION gte_small.fill_chunks(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name[], pg_catalog.bool) IS
  'part of enable_document_search: makes the chunks of the rows that are there';

-- A function as it is, to tell whether it was changed.
CREATE FUNCTION gte_small.function_state(func pg_catalog.regprocedure) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
  AS $body$ SELECT pg_get_functiondef(func) || coalesce(obj_description(func, 'pg_proc'), '') $body$;
COMMENT ON FUNCTION gte_small.function_state(pg_catalog.regprocedure) IS
  'part of enable_document_search: definition and comment of a function';

-- Gives a function the mark and the owner of the table. Its dependence on the extension makes DROP EXTENSION ...
-- CASCADE drop it, and is part of a dump.
CREATE FUNCTION gte_small.finish_document_function(
    target pg_catalog.regclass, func pg_catalog.regprocedure, description pg_catalog.text)
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  owner oid := (SELECT c.relowner FROM pg_class c WHERE c.oid = target);
BEGIN
  EXECUTE format('COMMENT ON FUNCTION %s IS %L', func, gte_small.document_mark() || ': ' || description);
  -- Citus refuses it.
  IF NOT gte_small.on_citus() THEN
    EXECUTE format('ALTER FUNCTION %s DEPENDS ON EXTENSION "gte-small"', func);
  END IF;
  IF owner <> (SELECT p.proowner FROM pg_proc p WHERE p.oid = func) THEN
    EXECUTE format('ALTER FUNCTION %s OWNER TO %s', func, owner::regrole);
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.finish_document_function(pg_catalog.regclass, pg_catalog.regprocedure, pg_catalog.text) IS
  'part of enable_document_search: mark, dependence and owner of a function';

-- "wanted" is a signature with a qualified name.
CREATE FUNCTION gte_small.rename_function(func pg_catalog.regprocedure, wanted pg_catalog.text) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  parts text[] := parse_ident("left"(wanted, -length(substring(wanted FROM '\([^()]*\)$'))));
BEGIN
  IF func IS NULL OR func = to_regprocedure(wanted) THEN
    RETURN;
  END IF;
  IF EXISTS (SELECT FROM pg_proc p WHERE p.oid = func AND p.pronamespace <> quote_ident(parts[1])::regnamespace) THEN
    EXECUTE format('ALTER FUNCTION %s SET SCHEMA %I', func, parts[1]);
  END IF;
  IF EXISTS (SELECT FROM pg_proc p WHERE p.oid = func AND p.proname::text <> parts[2]) THEN
    EXECUTE format('ALTER FUNCTION %s RENAME TO %I', func, parts[2]);
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.rename_function(pg_catalog.regprocedure, pg_catalog.text) IS
  'part of enable_document_search: moves a function with its table';

-- Makes what is missing or outdated, and returns what it changed.
CREATE FUNCTION gte_small.enable_documents(
    target pg_catalog.regclass, content pg_catalog.name[], context pg_catalog.name[], search_function pg_catalog.name,
    chunks_table pg_catalog.name, with_index pg_catalog.bool, index_options pg_catalog.jsonb)
  RETURNS pg_catalog.text[]
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
#variable_conflict use_variable
DECLARE
  made record;
  names record;
  chunks regclass;
  here record;
  granted record;
  sources name[];
  arguments text[];
  note jsonb := '{"empty": true}';
  mode text;
  noted text;
  signature text;
  before text;
  func regprocedure;
  partitioned bool;
  distributed bool;
  columns_changed bool;
  -- The index of the chunks without copies, where there are many copies.
  plan gte_small.index_step[] := '{}';
  later bool := false;
  lacking bool;
  of_citus text[] := gte_small.citus_settings(target);
  changed text[] := '{}';
BEGIN
  context := coalesce(context, '{}');
  sources := CASE WHEN context <> '{}' THEN '{heading,content}'::name[] ELSE '{content}' END;
  PERFORM gte_small.check_documents(target, content, context);
  partitioned := EXISTS (SELECT FROM pg_class d WHERE d.oid = target AND d.relkind = 'p');
  distributed := gte_small.is_distributed(target);
  SELECT * INTO made FROM gte_small.document_search(target);
  search_function := coalesce(search_function, nullif(made.arguments[3], '')::name);
  SELECT * INTO names FROM gte_small.document_names(target, chunks_table, search_function);
  index_options := coalesce(index_options, '{}');
  PERFORM gte_small.check_index_options(index_options);
  arguments := ARRAY[content::text, context::text, coalesce(search_function::text, '')];

  IF with_index AND made.chunks IS NOT NULL THEN
    plan := ARRAY(SELECT p FROM unnest(gte_small.index_plan(made.chunks, sources, 'embedding', 'simple', index_options)) p WHERE p.part = 'second');
    later := plan <> '{}' AND CASE index_options ->> 'build' WHEN 'later' THEN true WHEN 'now' THEN false ELSE gte_small.is_large(made.chunks) END;
  END IF;
  -- The strongest lock at once, of the documents first. A session that has searched both tables, and now stores a
  -- document, would wait for the lock here while this one waits for that of the chunks.
  mode := CASE WHEN NOT later AND EXISTS (SELECT FROM unnest(plan) p WHERE p.step = 'drop') OR EXISTS (
      SELECT FROM pg_class c JOIN pg_class d ON d.oid = target
       WHERE c.oid = made.chunks
         AND (c.relowner <> d.relowner OR NOT c.relrowsecurity
              OR (context <> '{}') <> EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'heading' AND NOT a.attisdropped)
              OR NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'of_visible_documents' AND p.polcmd = 'r')))
    THEN 'ACCESS EXCLUSIVE' ELSE 'SHARE ROW EXCLUSIVE' END;
  PERFORM gte_small.lock_for_change(target, mode, partitioned);
  IF made.chunks IS NOT NULL THEN
    PERFORM gte_small.lock_for_change(made.chunks, mode, false);
  END IF;

  -- From here on things are made.
  IF made.chunks IS NULL THEN
    chunks := gte_small.make_chunks(target, (parse_ident(names.chunks))[2]::name);
    changed := changed || format('table %s', chunks);
  ELSE
    chunks := made.chunks;
  END IF;
  SELECT * INTO here FROM gte_small.qualified(chunks);
  changed := changed || gte_small.renew_foreign_key(target, chunks);
  EXECUTE format('COMMENT ON TABLE %s IS %L', here.tbl, gte_small.document_mark() || ': parts of ' || target
                 || ', kept by a trigger; start counts characters from 1; disable_document_search drops this table');
  IF context <> '{}' AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = chunks AND a.attname = 'heading' AND NOT a.attisdropped) THEN
    EXECUTE format('ALTER TABLE %s ADD COLUMN heading text', here.tbl);
  END IF;
  changed := changed || gte_small.protect_chunks(chunks);

  -- The table was renamed, or is in another schema: its functions follow, and keep their privileges.
  PERFORM gte_small.rename_function(made.trigger_function, names.trigger_function || '()');
  signature := names.trigger_function || '()';
  before := gte_small.function_state(to_regprocedure(signature));
  -- The planner can't know how many parts a text has; a hash join is fast for any number.
  EXECUTE format('CREATE OR REPLACE FUNCTION %s RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER '
                 'SET search_path = pg_catalog, pg_temp SET enable_nestloop = off %s AS %L',
                 signature, CASE WHEN distributed THEN gte_small.settings_of_shards() END, gte_small.chunk_body(chunks, content, context));
  func := signature::regprocedure;
  PERFORM gte_small.finish_document_function(target, func, format('keeps the chunks of %s, with the rights of its owner', target));
  IF before IS DISTINCT FROM gte_small.function_state(func) THEN
    changed := changed || format('function %s', func);
  END IF;
  -- A role with this right could put the trigger on a table of its own, and write chunks as the owner. Citus 14 sends
  -- REVOKE to the workers without quotes, which fails or meets another function: there shard_statements() alone refuses.
  FOR granted IN SELECT DISTINCT a.grantee FROM pg_proc p CROSS JOIN aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                  WHERE p.oid = func AND a.grantee <> p.proowner
                    AND NOT (distributed AND (quote_ident(p.proname) <> p.proname OR p.pronamespace::regnamespace::text LIKE '"%')) LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s CASCADE', func, CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END);
  END LOOP;

  IF NOT EXISTS (SELECT FROM gte_small.embedding_columns(chunks) c
                  WHERE c.embedding = 'embedding' AND c.trigger_name = gte_small.trigger_name('embedding') AND c.content = sources AND c.trigger_enabled) THEN
    IF NOT EXISTS (SELECT FROM gte_small.embedding_columns(chunks) c WHERE c.embedding = 'embedding') THEN
      BEGIN
        note := note || (SELECT jsonb_build_object('fingerprint', m.fingerprint) FROM gte_small.embed_model() m);
      EXCEPTION WHEN OTHERS THEN
        RAISE NOTICE 'no model is loaded: %', SQLERRM USING HINT = 'Documents can be stored and searched once there is one.';
      END;
    ELSE
      note := NULL;
    END IF;
    EXECUTE format('CREATE OR REPLACE TRIGGER %I BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION %s.embed_trigger(''embedding'', %s)',
                   gte_small.trigger_name('embedding'), here.tbl, gte_small.extension_schema(),
                   (SELECT string_agg(quote_literal(s), ', ' ORDER BY n) FROM unnest(sources) WITH ORDINALITY AS u (s, n)));
    IF note IS NOT NULL THEN
      EXECUTE format('COMMENT ON TRIGGER %I ON %s IS %L', gte_small.trigger_name('embedding'), here.tbl, 'gte-small ' || note::text);
    END IF;
  END IF;
  columns_changed := made.arguments IS NOT NULL AND made.arguments[1:2] <> arguments[1:2];
  IF NOT distributed THEN
    PERFORM gte_small.fill_chunks(chunks, content, context, columns_changed);
  END IF;
  IF context = '{}' AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = chunks AND a.attname = 'heading' AND NOT a.attisdropped) THEN
    EXECUTE format('ALTER TABLE %s DROP COLUMN heading', here.tbl);
  END IF;
  IF with_index AND NOT EXISTS (SELECT FROM gte_small.vector_indexes(chunks, 'embedding') i
                                 WHERE i.method = 'hnsw' AND i.kind = coalesce(index_options ->> 'type', i.kind)) THEN
    changed := changed || gte_small.make_index(chunks, 'hnsw', sources, 'embedding', 'simple', index_options);
  END IF;
  IF NOT later THEN
    changed := changed || gte_small.make_indexes(chunks, sources, 'embedding', 'simple', index_options, plan);
  END IF;
  IF distributed THEN
    -- The check of its foreign key waits for the end of the transaction, and no DDL is possible meanwhile.
    PERFORM gte_small.fill_chunks(chunks, content, context, columns_changed);
  END IF;
  -- Its name sorts before that of the trigger that embeds.
  IF NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = chunks AND t.tgname = 'gte_small_accept' AND t.tgenabled IN ('O', 'A')) THEN
    EXECUTE format('CREATE OR REPLACE TRIGGER gte_small_accept BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION gte_small.accept_chunk()', here.tbl);
  END IF;

  -- In a database with Citus the function can't depend on the extension. This condition makes the trigger depend on it, so that
  -- DROP EXTENSION ... CASCADE leaves no trigger that fails. It is always true.
  IF made.named IS DISTINCT FROM arguments
     OR NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname = 'gte_small_chunks' AND t.tgfoid = func AND t.tgtype = CASE WHEN partitioned THEN 29 ELSE 21 END
                                                    AND (t.tgqual IS NOT NULL) = gte_small.on_citus()) THEN
    EXECUTE format('CREATE OR REPLACE TRIGGER gte_small_chunks AFTER INSERT OR UPDATE' || CASE WHEN partitioned THEN ' OR DELETE' ELSE '' END || ' ON %s FOR EACH ROW %s EXECUTE FUNCTION %s.%I(%L, %L, %L)',
                   (SELECT q.tbl FROM gte_small.qualified(target) q), CASE WHEN gte_small.on_citus() THEN 'WHEN (gte_small.document_mark() IS NOT NULL)' END,
                   (SELECT p.pronamespace::regnamespace FROM pg_proc p WHERE p.oid = func),
                   (SELECT p.proname FROM pg_proc p WHERE p.oid = func), arguments[1], arguments[2], arguments[3]);
    changed := changed || 'trigger gte_small_chunks'::text;
  ELSIF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname = 'gte_small_chunks' AND t.tgenabled NOT IN ('O', 'A')) THEN
    EXECUTE format('ALTER TABLE %s ENABLE TRIGGER gte_small_chunks', target);
    changed := changed || 'trigger gte_small_chunks (enabled)'::text;
  END IF;

  -- The numbers of the columns, by which the trigger finds them after a rename.
  noted := gte_small.document_mark() || ': ' || gte_small.noted_columns(target, content || context);
  IF noted IS DISTINCT FROM (SELECT obj_description(t.oid, 'pg_trigger') FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname = 'gte_small_chunks') THEN
    EXECUTE format('COMMENT ON TRIGGER gte_small_chunks ON %s IS %L', target, noted);
  END IF;

  PERFORM gte_small.rename_function(made.search_functions[1], names.query || '(text, float8, int4, jsonb)');
  signature := names.query || '(text, float8, int4, jsonb)';
  before := gte_small.function_state(to_regprocedure(signature));
  EXECUTE format(
    'CREATE OR REPLACE FUNCTION %s(search text, match_threshold float8 default null, match_count int default 10, filter jsonb default ''{}'') '
    'RETURNS TABLE (document %s, ordinal int, start int, chunk text, similarity float8) '
    'LANGUAGE plpgsql STABLE PARALLEL %s ROWS 10 COST 100000 AS %L',
    names.query, (SELECT q.tbl FROM gte_small.qualified(target) q), CASE WHEN distributed THEN 'UNSAFE' ELSE 'SAFE' END,
    gte_small.query_body(chunks));
  func := signature::regprocedure;
  PERFORM gte_small.finish_document_function(target, func,
    'the match_count documents most similar to a text, each with its best chunk, of those above match_threshold that pass the filter');
  IF before IS DISTINCT FROM gte_small.function_state(func) THEN
    changed := changed || format('function %s', func);
  END IF;

  IF EXISTS (SELECT FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhparent WHERE h.inhparent = target AND c.relkind = 'r') THEN
    RAISE WARNING 'rows of tables that inherit from % are not searched', target
      USING DETAIL = 'A trigger has the rows of its own table only.', HINT = 'Enable the search on each of them.';
  END IF;
  IF EXISTS (SELECT FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
              WHERE c.oid = target AND c.relrowsecurity AND c.relforcerowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls) THEN
    RAISE WARNING 'row-level security of table % holds for its owner too, and rows that it hides from him may have no chunks', target
      USING DETAIL = 'Rows that are stored from now on have.',
            HINT = format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY, enable the search again, and force it again.', target);
  END IF;
  EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s c WHERE c.embedding IS NULL)', here.tbl) INTO lacking;
  IF lacking THEN
    RAISE NOTICE 'table % has chunks without an embedding', chunks USING HINT = format('CALL embed_backfill(%L);', chunks);
  END IF;
  IF later THEN
    RAISE NOTICE 'no second index on table % was built', chunks
      USING DETAIL = 'Copies of a vector can hide other chunks from the index. To build one takes minutes on a large table, and writers would wait.',
            HINT = E'Run these statements, each by itself, outside of a transaction block:\n'
                   || (SELECT string_agg(p, E'\n') FROM gte_small.plan_statements(chunks, sources, 'embedding', 'simple', index_options, plan) p);
  END IF;
  PERFORM gte_small.citus_settings_back(of_citus);
  RETURN changed;
END
$body$;
COMMENT ON FUNCTION gte_small.enable_documents(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name[], pg_catalog.name, pg_catalog.name, pg_catalog.bool, pg_catalog.jsonb) IS
  'part of enable_document_search: makes what is missing or outdated, and says what it changed';

CREATE FUNCTION enable_document_search(
    target pg_catalog.regclass,
    content pg_catalog.text DEFAULT 'content',
    context pg_catalog.text DEFAULT NULL,
    search_function pg_catalog.name DEFAULT NULL,
    chunks_table pg_catalog.name DEFAULT NULL,
    with_index pg_catalog.bool DEFAULT true,
    index_options pg_catalog.jsonb DEFAULT '{}')
  RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  changed text[] := gte_small.enable_documents(
    target, gte_small.column_names(target, content), gte_small.column_names(target, context), search_function, chunks_table, with_index, index_options);
BEGIN
  IF changed <> '{}' THEN
    RAISE NOTICE 'document search on table %: made %', target, array_to_string(changed, ', ')
      USING HINT = format('Search it: SELECT document, chunk, similarity FROM %s(''what you look for'');',
                          (SELECT d.search_functions[1]::oid::regproc FROM gte_small.document_search(target) d));
  END IF;
END
$body$;
COMMENT ON FUNCTION enable_document_search(pg_catalog.regclass, pg_catalog.text, pg_catalog.text, pg_catalog.name, pg_catalog.name, pg_catalog.bool, pg_catalog.jsonb) IS
  'makes long texts of a table searchable by their parts: table of chunks, triggers, index, search function; again, it mends what is missing';

-- For refresh_semantic_search: renews what an earlier version made for a table, with the same arguments.
CREATE FUNCTION gte_small.renew_documents(target pg_catalog.regclass) RETURNS pg_catalog.text[]
  LANGUAGE sql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT gte_small.enable_documents(target, d.arguments[1]::name[], d.arguments[2]::name[], NULL, NULL,
                                    EXISTS (SELECT FROM gte_small.vector_indexes(d.chunks, 'embedding')), '{}')
    FROM gte_small.document_search(target) d
$body$;
COMMENT ON FUNCTION gte_small.renew_documents(pg_catalog.regclass) IS
  'part of refresh_semantic_search: renews document search on a table';

CREATE FUNCTION disable_document_search(target pg_catalog.regclass) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  relation pg_class;
  made record;
  one regprocedure;
  of_citus text[];
  distributed CONSTANT bool := gte_small.is_distributed(target);
  level CONSTANT text := current_setting('client_min_messages');
BEGIN
  SELECT * INTO relation FROM pg_class WHERE oid = target;
  IF relation.relowner IS NULL THEN
    RAISE EXCEPTION 'table must not be NULL'
      USING ERRCODE = 'null_value_not_allowed', DETAIL = 'Nothing was dropped.',
            HINT = 'Name a table, as in disable_document_search(''manuals'').';
  ELSIF NOT pg_has_role(relation.relowner, 'USAGE') THEN
    RAISE EXCEPTION 'must be owner of table %', target
      USING ERRCODE = 'insufficient_privilege', DETAIL = 'Nothing was dropped.',
            HINT = format('Ask a member of role %s.', relation.relowner::regrole);
  END IF;
  of_citus := gte_small.citus_settings(target);
  -- Dropping the foreign key takes the same lock of both, in another order.
  PERFORM gte_small.lock_for_change(target, 'ACCESS EXCLUSIVE', relation.relkind = 'p');
  SELECT * INTO made FROM gte_small.document_search(target);
  IF made.chunks IS NOT NULL THEN
    PERFORM gte_small.lock_for_change(made.chunks, 'ACCESS EXCLUSIVE', false);
  END IF;
  IF made.chunks IS NULL AND made.trigger_function IS NULL AND made.search_functions = '{}' THEN
    RAISE NOTICE 'document search is not enabled on table %, nothing to undo', target;
  END IF;
  FOREACH one IN ARRAY made.search_functions LOOP
    EXECUTE format('DROP FUNCTION %s', one);
  END LOOP;
  IF made.trigger_function IS NOT NULL AND NOT distributed THEN
    EXECUTE format('DROP TRIGGER gte_small_chunks ON %s', target);
  END IF;
  IF made.chunks IS NOT NULL THEN
    EXECUTE format('DROP TABLE %s', made.chunks);
  END IF;
  IF made.trigger_function IS NOT NULL THEN
    IF distributed THEN
      -- Citus drops the trigger of a shard on the coordinator by a connection of its own, and this session would wait for it.
      -- CASCADE also drops triggers that other roles made on a worker.
      PERFORM set_config('client_min_messages', 'warning', true);
      EXECUTE format('DROP FUNCTION %s CASCADE', made.trigger_function);
      PERFORM set_config('client_min_messages', level, true);
    ELSE
      EXECUTE format('DROP FUNCTION %s', made.trigger_function);
    END IF;
  END IF;
  PERFORM gte_small.citus_settings_back(of_citus);
END
$body$;
COMMENT ON FUNCTION disable_document_search(pg_catalog.regclass) IS
  'undoes enable_document_search: drops its triggers, its functions, and the table of chunks; the documents stay';
