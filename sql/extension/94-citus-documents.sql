-- Document search on tables that Citus distributes.
--
-- The chunks are distributed with their documents: a document and its chunks are on one server. The trigger fires on a
-- shard of the documents, and writes the shard of the chunks beside it, without Citus. The search knows a document by
-- its primary key. Citus takes no ON UPDATE CASCADE with the distribution column, and no policy with a subquery.

-- How Citus distributes a table: hash, single (one shard, as in a distributed schema), reference, local, or other.
-- NULL for a table that it does not know.
CREATE FUNCTION gte_small.distribution(target pg_catalog.regclass) RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  IF NOT gte_small.on_citus() THEN
    RETURN NULL;
  END IF;
  RETURN (SELECT CASE WHEN p.partmethod = 'h' THEN 'hash' WHEN p.partmethod <> 'n' THEN 'other'
                      WHEN p.repmodel = 't' THEN 'reference' WHEN p.colocationid = 0 THEN 'local' ELSE 'single' END
            FROM pg_dist_partition p WHERE p.logicalrelid = target);
END
$body$;
COMMENT ON FUNCTION gte_small.distribution(pg_catalog.regclass) IS
  'part of enable_document_search: how Citus distributes a table';

-- Distributes a new, empty table of chunks as its documents are. Its first columns are those of their key.
CREATE FUNCTION gte_small.distribute_chunks(target pg_catalog.regclass, chunks pg_catalog.regclass) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  kind CONSTANT text := gte_small.distribution(target);
  documents CONSTANT text := (SELECT q.tbl FROM gte_small.qualified(target) q);
  distribution_column text;
BEGIN
  -- In a distributed schema Citus has done it.
  IF kind IS NULL OR gte_small.is_distributed(chunks) THEN
    RETURN;
  ELSIF kind = 'reference' THEN
    PERFORM create_reference_table(chunks);
  ELSIF kind = 'local' THEN
    PERFORM citus_add_local_table_to_metadata(chunks);
  ELSE
    distribution_column := (SELECT a.attname FROM pg_dist_partition p
             CROSS JOIN unnest(gte_small.key_columns(target)) WITH ORDINALITY AS k (key, n)
             JOIN pg_attribute a ON a.attrelid = chunks AND a.attnum = k.n
            WHERE p.logicalrelid = target AND k.key = column_to_column_name(target, p.partkey));
    PERFORM create_distributed_table(chunks, distribution_column, colocate_with => documents);
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.distribute_chunks(pg_catalog.regclass, pg_catalog.regclass) IS
  'part of enable_document_search: distributes the table of the chunks like the documents';

-- What chunks do when the key of their document changes, or the document goes. Where Citus allows no ON UPDATE CASCADE
-- the trigger moves them, and the check waits for the end of the transaction.
CREATE FUNCTION gte_small.chunks_follow(target pg_catalog.regclass) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT CASE WHEN gte_small.distribution(target) = 'hash' THEN 'ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED'
              ELSE 'ON UPDATE CASCADE ON DELETE CASCADE' END
$body$;
COMMENT ON FUNCTION gte_small.chunks_follow(pg_catalog.regclass) IS
  'part of enable_document_search: the actions of the foreign key of the chunks';

-- After undistribute_table() the foreign key has the actions of a distributed table.
CREATE FUNCTION gte_small.renew_foreign_key(target pg_catalog.regclass, chunks pg_catalog.regclass) RETURNS pg_catalog.text[]
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  former name;
  k record;
BEGIN
  SELECT f.conname INTO former FROM pg_constraint f CROSS JOIN (SELECT d.chunk_keys FROM gte_small.document_keys(chunks) d) d
   WHERE f.conrelid = chunks AND f.contype = 'f' AND f.confrelid = target AND f.conparentid = 0
     -- Not one that the owner added.
     AND ARRAY(SELECT a.attname FROM unnest(f.conkey) WITH ORDINALITY AS u (attnum, n)
                 JOIN pg_attribute a ON a.attrelid = chunks AND a.attnum = u.attnum ORDER BY u.n) = d.chunk_keys
     AND (f.confupdtype = 'c') <> (gte_small.chunks_follow(target) LIKE 'ON UPDATE CASCADE%') ORDER BY f.oid LIMIT 1;
  IF former IS NULL THEN
    RETURN '{}';
  END IF;
  SELECT string_agg(quote_ident(u.key), ', ' ORDER BY n) AS keys, string_agg(quote_ident(u.chunk_key), ', ' ORDER BY n) AS chunk_keys INTO k
    FROM gte_small.document_keys(chunks) d CROSS JOIN unnest(d.keys, d.chunk_keys) WITH ORDINALITY AS u (key, chunk_key, n);
  EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', chunks, former);
  EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I FOREIGN KEY (%s) REFERENCES %s (%s) %s', chunks, former, k.chunk_keys, target, k.keys,
                 gte_small.chunks_follow(target));
  RETURN ARRAY[format('foreign key %s', former)];
END
$body$;
COMMENT ON FUNCTION gte_small.renew_foreign_key(pg_catalog.regclass, pg_catalog.regclass) IS
  'part of enable_document_search: the foreign key of the chunks after the documents were distributed otherwise';

-- The setting that lets the trigger write a shard while COPY of the coordinator fills its own.
CREATE FUNCTION gte_small.settings_of_shards() RETURNS pg_catalog.text
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
  AS $body$ SELECT 'SET citus.enable_manual_changes_to_shards = on' $body$;
COMMENT ON FUNCTION gte_small.settings_of_shards() IS
  'part of enable_document_search: the SET clause of the trigger function of a distributed table';

-- In a policy: whether the role sees the document of a chunk. "chunks" is the shard. Row-level security of the
-- documents is asked first, because then most roles need no look at the document. The condition is made here, in one
-- statement whose plan is kept: document_keys() and has_key_of_json() would take eight times as long as the look.
-- The documents have the trigger: a move of a shard makes its foreign keys anew, and the owner may have added others.
CREATE FUNCTION gte_small.sees_document(chunks pg_catalog.oid, key pg_catalog.jsonb) RETURNS pg_catalog.bool
  LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $body$
DECLARE
  f pg_catalog.record;
  condition pg_catalog.text;
  seen pg_catalog.bool;
BEGIN
  SELECT c.confrelid AS documents, c.confkey, c.conpfeqop INTO f
    FROM pg_catalog.pg_constraint c
   WHERE c.conrelid OPERATOR(pg_catalog.=) chunks AND c.contype OPERATOR(pg_catalog.=) 'f' AND c.conparentid OPERATOR(pg_catalog.=) 0
     AND EXISTS (SELECT FROM pg_catalog.pg_trigger t
                  WHERE t.tgrelid OPERATOR(pg_catalog.=) c.confrelid AND pg_catalog.starts_with(t.tgname::pg_catalog.text, 'gte_small_chunks'))
   ORDER BY c.oid LIMIT 1;
  IF NOT FOUND THEN
    RETURN false;
  ELSIF NOT pg_catalog.row_security_active(f.documents) THEN
    RETURN pg_catalog.has_any_column_privilege(f.documents, 'SELECT');
  END IF;
  SELECT pg_catalog.string_agg(pg_catalog.format('e.%I operator(%I.%s) ($1 operator(pg_catalog.->>) %s)::%s', a.attname, s.nspname, o.oprname,
                               u.n OPERATOR(pg_catalog.-) 1, pg_catalog.format_type(a.atttypid, a.atttypmod)), ' and ')
    INTO condition
    FROM ROWS FROM (pg_catalog.unnest(f.confkey), pg_catalog.unnest(f.conpfeqop)) WITH ORDINALITY AS u (attnum, equals, n)
    JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) f.documents AND a.attnum OPERATOR(pg_catalog.=) u.attnum
    JOIN pg_catalog.pg_operator o ON o.oid OPERATOR(pg_catalog.=) u.equals
    JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) o.oprnamespace;
  EXECUTE pg_catalog.format('SELECT EXISTS (SELECT 1 FROM %s e WHERE %s)', f.documents::pg_catalog.regclass, condition) INTO seen USING key;
  RETURN seen;
END
$body$;
COMMENT ON FUNCTION gte_small.sees_document(pg_catalog.oid, pg_catalog.jsonb) IS
  'part of document search: whether the current role sees the document of a chunk';

CREATE FUNCTION gte_small.visible_on_shard(chunks pg_catalog.regclass) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT format('gte_small.sees_document(%I.tableoid, %s)', c.relname, gte_small.json_of_key(quote_ident(c.relname), k.chunk_keys))
    FROM gte_small.document_keys(chunks) k CROSS JOIN pg_class c WHERE c.oid = chunks
$body$;
COMMENT ON FUNCTION gte_small.visible_on_shard(pg_catalog.regclass) IS
  'part of enable_document_search: the condition of the policy of distributed chunks';

-- Runs statements of fill_chunks(). Only the owner enables the search of a distributed table, and all connections to the
-- workers are his. SET LOCAL reaches them, and set_config() does not.
CREATE FUNCTION gte_small.fill_shards(statements pg_catalog.text) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  propagated CONSTANT text := current_setting('citus.propagate_set_commands');
  deferred CONSTANT text := coalesce(current_setting('gte_small.defer', true), 'off');
BEGIN
  PERFORM set_config('citus.propagate_set_commands', 'local', true);
  SET LOCAL gte_small.defer = on;
  EXECUTE statements;
  EXECUTE format('SET LOCAL gte_small.defer = %s', deferred);
  PERFORM set_config('citus.propagate_set_commands', propagated, true);
END
$body$;
COMMENT ON FUNCTION gte_small.fill_shards(pg_catalog.text) IS
  'part of enable_document_search: makes the chunks of distributed documents, without embeddings';

-- What stands for the shard of the chunks in the statements of a trigger function.
CREATE FUNCTION gte_small.shard_of_chunks() RETURNS pg_catalog.text
  LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
  AS $body$ SELECT '"gte-small: the chunks of this shard"' $body$;
COMMENT ON FUNCTION gte_small.shard_of_chunks() IS
  'part of enable_document_search: a name that shard_statements() replaces';

-- The call of shard_statements() in a trigger function, with the statements of chunk_statements() and one more, "moved":
-- it gives the chunks of a row $1 the key of the row $2. The statements are constants, so that no error message shows them.
CREATE FUNCTION gte_small.call_of_shard_statements(
    chunks pg_catalog.regclass, content pg_catalog.name[], context pg_catalog.name[], OUT constants pg_catalog.text, OUT call pg_catalog.text)
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  k record;
  s record;
BEGIN
  SELECT * INTO k FROM gte_small.document_keys(chunks);
  SELECT * INTO s FROM gte_small.chunk_statements(k.target, (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = chunks),
                                                  content::text, context::text, place => gte_small.shard_of_chunks());
  constants := format($sql$
  columns constant pg_catalog.name[] := %L;
  chunk_columns constant pg_catalog.name[] := %L;
  statements constant pg_catalog.text[] := %L;$sql$,
    (SELECT array_agg(DISTINCT u.c ORDER BY u.c) FROM unnest(content || context || k.keys) AS u (c)),
    k.chunk_keys || '{ordinal,start,content,embedding}'::name[] || CASE WHEN context <> '{}' THEN '{heading}'::name[] ELSE '{}' END,
    ARRAY[s.texts, s.present, s.removal, s.replacement,
          format('update %s c set %s where %s', gte_small.shard_of_chunks(),
                 (SELECT string_agg(format('%I = ($2).%I', u.chunk_key, u.key), ', ' ORDER BY n) FROM unnest(k.chunk_keys, k.keys) WITH ORDINALITY AS u (chunk_key, key, n)),
                 (SELECT string_agg(format('($1).%I %s c.%I', u.key, u.equals, u.chunk_key), ' and ' ORDER BY n)
                    FROM unnest(k.keys, k.chunk_keys, k.operators) WITH ORDINALITY AS u (key, chunk_key, equals, n)))]);
  call := format('gte_small.shard_statements(tg_relid, tg_table_name, current_user, %L, columns, chunk_columns, statements)', (SELECT q.tbl FROM gte_small.qualified(chunks) q));
END
$body$;
COMMENT ON FUNCTION gte_small.call_of_shard_statements(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name[]) IS
  'part of enable_document_search: how the trigger function of a distributed table finds its statements';

-- For the trigger function: moves the chunks of a row that got another key, where the foreign key does not.
CREATE FUNCTION gte_small.moves_chunks(chunks pg_catalog.regclass) RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  k record;
BEGIN
  SELECT * INTO k FROM gte_small.document_keys(chunks);
  IF gte_small.distribution(k.target) <> 'hash' THEN
    RETURN NULL;
  END IF;
  RETURN format($sql$
    if not (%s) then
      execute s.moved using old, new;
    end if;$sql$, (SELECT string_agg(format('old.%I %s new.%I', u.key, u.equals, u.key), ' and ' ORDER BY n)
                     FROM unnest(k.keys, k.operators) WITH ORDINALITY AS u (key, equals, n)));
END
$body$;
COMMENT ON FUNCTION gte_small.moves_chunks(pg_catalog.regclass) IS
  'part of enable_document_search: the statement for a new key in the trigger function of a distributed table';

-- The statements of a trigger that fires on a shard, with the name of the chunks' shard beside it. It has the same
-- range of hash values. "chunks" is the distributed table, "columns" and "chunk_columns" are those in the statements, and
-- "owner" must own the chunks, as in names_hold(). Other roles may be able to use the trigger function, so the shard
-- must be one of the documents: on another table the trigger would write chunks as their owner.
CREATE FUNCTION gte_small.shard_statements(
    shard pg_catalog.regclass, shard_table pg_catalog.name, owner pg_catalog.name, chunks_table pg_catalog.text, columns pg_catalog.name[],
    chunk_columns pg_catalog.name[], statements pg_catalog.text[], OUT chunks pg_catalog.regclass, OUT texts pg_catalog.text, OUT present pg_catalog.text, OUT removal pg_catalog.text,
    OUT replacement pg_catalog.text, OUT moved pg_catalog.text)
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off SET plan_cache_mode = force_generic_plan SET enable_nestloop = on
AS $body$
DECLARE
  -- Apart from the statement, which would call functions for each shard of the database.
  id CONSTANT int8 := substring(shard_table::text FROM '_(\d{1,18})$');
  place_of_chunks CONSTANT oid := to_regclass(chunks_table);
  beside record;
  missing record;
BEGIN
  SELECT d.logicalrelid AS documents, shard_name(d.logicalrelid, d.shardid, false) AS named, shard_name(c.logicalrelid, c.shardid, false) AS place INTO beside
    FROM pg_dist_shard d
    JOIN pg_dist_shard c ON c.logicalrelid = place_of_chunks AND c.shardminvalue IS NOT DISTINCT FROM d.shardminvalue
                        AND c.shardmaxvalue IS NOT DISTINCT FROM d.shardmaxvalue
   WHERE d.shardid = id;
  IF beside IS NULL OR to_regclass(beside.named) IS DISTINCT FROM shard
     OR NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = place_of_chunks AND pg_get_userbyid(r.relowner) = owner)
     -- The name of a shard that is on another node can be that of any table here. Citus hides shards in pg_class.
     OR NOT EXISTS (SELECT FROM pg_dist_placement p JOIN pg_dist_local_group g ON g.groupid = p.groupid WHERE p.shardid = id)
     OR NOT EXISTS (SELECT FROM pg_constraint f
                     WHERE f.conrelid = place_of_chunks AND f.contype = 'f' AND f.confrelid = coalesce(pg_partition_root(beside.documents), beside.documents)) THEN
    RAISE EXCEPTION 'the shard of the chunks of table % is not found', shard_table
      USING ERRCODE = 'undefined_table', DETAIL = format('%s is gone, has another name or owner, or is not distributed with the documents, so the row was not changed.', chunks_table),
            HINT = 'Call enable_document_search() for the table of the documents again, as its owner, on the coordinator.';
  END IF;
  -- The statements have the names of the time when the search was enabled.
  SELECT u.c, u.relation, u.relation = place_of_chunks AS of_chunks INTO missing
    FROM (SELECT beside.documents::oid AS relation, unnest(columns) AS c UNION ALL SELECT place_of_chunks, unnest(chunk_columns)) AS u
   WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = u.relation AND a.attname = u.c AND NOT a.attisdropped) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'column "%" of table % does not exist, and the chunks of documents need it', missing.c, missing.relation::regclass
      USING ERRCODE = 'undefined_column', DETAIL = 'The chunks can''t be kept, so the row was not changed.',
            HINT = (SELECT CASE WHEN missing.of_chunks AND missing.c IN ('ordinal', 'start', 'content', 'heading', 'embedding') THEN 'If it was renamed, give it this name again.'
                                WHEN missing.c = ANY (d.named[1]::name[] || d.named[2]::name[]) THEN 'Name the text columns of today: ' || gte_small.enable_again(t.documents, '{}', '{}')
                                ELSE 'On the coordinator: ' || gte_small.enable_again(t.documents, d.named[1], d.named[2]) END
                      FROM (SELECT coalesce(pg_partition_root(beside.documents), beside.documents) AS documents) t
                      CROSS JOIN LATERAL gte_small.document_search(t.documents) d);
  END IF;
  chunks := to_regclass(beside.place);
  statements := ARRAY(SELECT replace(u.s, gte_small.shard_of_chunks(), beside.place) FROM unnest(statements) WITH ORDINALITY AS u (s, n) ORDER BY u.n);
  texts := statements[1];
  present := statements[2];
  removal := statements[3];
  replacement := statements[4];
  moved := statements[5];
END
$body$;
COMMENT ON FUNCTION gte_small.shard_statements(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text, pg_catalog.name[], pg_catalog.name[], pg_catalog.text[]) IS
  'part of document search: the statements of a trigger on a shard';

-- The nearest documents of a distributed table and the best chunk of each. As nearest_documents(), but with keys for
-- places. The workers don't say whether they used their indexes, so the exact statement follows wherever the nearest
-- chunks come back short. The documents are read once, at the end: they are long, and most of them are not wanted.
CREATE FUNCTION gte_small.documents_of_shards(
    of_kind anyelement, wanted vector, most pg_catalog.int4, bound pg_catalog.float8, filter pg_catalog.jsonb,
    OUT document anyelement, OUT ordinal pg_catalog.int4, OUT start pg_catalog.int4, OUT chunk pg_catalog.text, OUT d pg_catalog.float8)
  RETURNS SETOF pg_catalog.record
  LANGUAGE plpgsql STABLE PARALLEL UNSAFE ROWS 10 SET plan_cache_mode = force_custom_plan
  -- Citus sends keys as literals of this setting, and workers read dates that this session wrote.
  SET standard_conforming_strings = on SET datestyle = iso SET intervalstyle = postgres SET extra_float_digits = 1
AS $body$
#variable_conflict use_column
DECLARE
  target CONSTANT pg_catalog.regclass := gte_small.table_of_rows(pg_catalog.pg_typeof(of_kind));
  chunks CONSTANT pg_catalog.regclass := gte_small.chunks_of(target);
  half CONSTANT pg_catalog.bool := gte_small.searches_halfvec(chunks, 'embedding');
  by_key CONSTANT pg_catalog.bool := gte_small.sorts_by_index_and_key() AND NOT half;
  slack CONSTANT pg_catalog.float8 := gte_small.order_error(half);
  second CONSTANT pg_catalog.text := gte_small.second_condition(chunks, 'embedding', 'c');
  collected CONSTANT pg_catalog.text :=
    'select pg_catalog.array_agg(s.k), pg_catalog.array_agg(s.ordinal), pg_catalog.array_agg(s.d) from ';
  -- $1 is the vector.
  rest pg_catalog.text;
  nearest pg_catalog.text;
  k pg_catalog.record;
  -- The key in a chunk, by itself and with aliases.
  of_chunk pg_catalog.text;
  aliased pg_catalog.text;
  aliases pg_catalog.text;
  keys pg_catalog.jsonb[];
  ordinals pg_catalog.int4[];
  distances pg_catalog.float8[];
  furthest pg_catalog.float8;
  reach pg_catalog.int4;
  seen pg_catalog.int4;
  passing pg_catalog.int4;
  certain pg_catalog.int4;
  enough pg_catalog.bool := false;
BEGIN
  IF chunks IS NULL THEN
    RAISE EXCEPTION 'the table of the chunks of table % is gone', target
      USING ERRCODE = 'undefined_table', DETAIL = 'There is nothing to search.', HINT = gte_small.enable_again(target, '{}', '{}');
  END IF;
  PERFORM gte_small.check_reader(chunks);
  IF most OPERATOR(pg_catalog.=) 0 OR wanted IS NULL THEN
    RETURN;
  END IF;
  SELECT * INTO k FROM gte_small.document_keys(chunks);
  SELECT pg_catalog.string_agg(pg_catalog.format('c.%I', u.c), ', ' ORDER BY n), pg_catalog.string_agg(pg_catalog.format('c.%I as "key %s"', u.c, n), ', ' ORDER BY n),
         pg_catalog.string_agg(pg_catalog.format('u."key %s"', n), ', ' ORDER BY n)
    INTO of_chunk, aliased, aliases FROM ROWS FROM (pg_catalog.unnest(k.chunk_keys)) WITH ORDINALITY AS u (c, n);
  rest := pg_catalog.format('%s as k, c.ordinal, gte_small.exact_distance(c.embedding, $1) as d from %s e join %s c on %s where c.embedding is not null%s',
                            gte_small.json_of_key('c', k.chunk_keys), target, chunks, k.joined, gte_small.conditions(target, filter));

  nearest := pg_catalog.concat('select ', rest, ' order by gte_small.', CASE WHEN half THEN 'half_distance' ELSE 'distance' END, '(c.embedding, $1)',
                               CASE WHEN by_key THEN pg_catalog.concat(', ', of_chunk) END, ' limit $2');
  IF second IS NOT NULL THEN
    nearest := pg_catalog.concat('select * from ((', nearest, ') union (select ', rest, ' and ', second,
                                 ' order by gte_small.second_distance(c.embedding, $1) limit $2)) u order by u.d, u.k limit $2');
  END IF;
  reach := LEAST(4::pg_catalog.int8 OPERATOR(pg_catalog.*) most, 2147483647);
  FOR round IN 1 .. 2 LOOP
    EXECUTE pg_catalog.concat(collected, '(', nearest, ') s')
      INTO keys, ordinals, distances USING wanted, reach;
    seen := COALESCE(pg_catalog.cardinality(keys), 0);
    furthest := (SELECT pg_catalog.max(u.x) FROM pg_catalog.unnest(distances) u (x));
    -- The best chunk of each document.
    SELECT pg_catalog.array_agg(b.k) FILTER (WHERE b.position OPERATOR(pg_catalog.<=) most),
           pg_catalog.array_agg(b.ordinal) FILTER (WHERE b.position OPERATOR(pg_catalog.<=) most),
           pg_catalog.array_agg(b.d) FILTER (WHERE b.position OPERATOR(pg_catalog.<=) most),
           pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE b.d OPERATOR(pg_catalog.<) (furthest OPERATOR(pg_catalog.-) slack))
      INTO keys, ordinals, distances, passing, certain
      FROM (SELECT o.*, pg_catalog.rank() OVER (ORDER BY o.d) AS position
              FROM (SELECT DISTINCT ON (u.k) u.k, u.ordinal, u.d
                      FROM ROWS FROM (pg_catalog.unnest(keys), pg_catalog.unnest(ordinals), pg_catalog.unnest(distances)) u (k, ordinal, d)
                     WHERE u.d OPERATOR(pg_catalog.<) bound
                     ORDER BY u.k, u.d, u.ordinal) o) b;
    enough := certain OPERATOR(pg_catalog.>=) most OR by_key AND passing OPERATOR(pg_catalog.>=) most
              OR seen OPERATOR(pg_catalog.=) reach AND furthest OPERATOR(pg_catalog.>=) (bound OPERATOR(pg_catalog.+) slack);
    EXIT WHEN enough OR seen OPERATOR(pg_catalog.<) reach;
    reach := LEAST(8::pg_catalog.int8 OPERATOR(pg_catalog.*) reach, 2147483647);
  END LOOP;
  IF NOT COALESCE(enough, false) THEN
    EXECUTE pg_catalog.concat(collected, '(select u.k, u.ordinal, u.d from (select distinct on (', of_chunk, ') ', aliased, ', ', rest, ' order by ', of_chunk,
        ', d, c.ordinal) u where u.d operator(pg_catalog.<) $2 order by u.d, ', aliases, ' limit $3) s')
      INTO keys, ordinals, distances USING wanted, bound, most;
  END IF;

  RETURN QUERY EXECUTE pg_catalog.format(
    'select (e.*)::%s, c.ordinal, c.start, c.content, u.d from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) u (k, ordinal, d) '
    'join %s e on %s join %s c on %s and c.ordinal operator(pg_catalog.=) u.ordinal where u.d operator(pg_catalog.<) $4 order by u.d, %s limit $5',
    (SELECT q.tbl FROM gte_small.qualified(target) q), target, gte_small.has_key_of_json(target, 'e', k.keys, 'u.k'), chunks, k.joined,
    (SELECT pg_catalog.string_agg(pg_catalog.format('e.%I', u.c), ', ' ORDER BY n) FROM ROWS FROM (pg_catalog.unnest(k.keys)) WITH ORDINALITY AS u (c, n)))
    USING keys, ordinals, distances, bound, most;
END
$body$;
COMMENT ON FUNCTION gte_small.documents_of_shards(anyelement, vector, pg_catalog.int4, pg_catalog.float8, pg_catalog.jsonb) IS
  'part of document search: the nearest documents of a distributed table, each with its best chunk';
