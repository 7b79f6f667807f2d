-- The functions that enable_document_search() makes for a table, and the search they call.

-- The text of several columns of a row, as SQL: joined by newlines, as embed_trigger() joins them.
CREATE FUNCTION gte_small.text_of(row_name pg_catalog.text, columns pg_catalog.name[]) RETURNS pg_catalog.text
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT CASE WHEN columns = '{}' THEN 'NULL::pg_catalog.text'
         ELSE format('pg_catalog.concat_ws(pg_catalog.chr(10), %s)',
                     (SELECT string_agg(format('%s.%I::pg_catalog.text', row_name, c), ', ' ORDER BY n) FROM unnest(columns) WITH ORDINALITY AS u (c, n))) END
$body$;
COMMENT ON FUNCTION gte_small.text_of(pg_catalog.text, pg_catalog.name[]) IS
  'part of enable_document_search: the expression of a document''s text';

-- Whether generated functions still have the right names: of the documents (NULL for the trigger, which fires on them),
-- of the chunks, of the key columns on both sides in the order of the foreign key, and of the other columns. "owner" is
-- that of the chunks. Takes 50 µs; to make the statements anew takes 1 ms.
CREATE FUNCTION gte_small.names_hold(
    target pg_catalog.regclass, documents pg_catalog.text, chunks pg_catalog.text, keys pg_catalog.name[], chunk_keys pg_catalog.name[],
    columns pg_catalog.name[], owner pg_catalog.name)
  RETURNS pg_catalog.bool
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
  -- To plan takes ten times as long as the plan. The trigger function has nestloop off, for its own statements.
  SET plan_cache_mode = force_generic_plan SET enable_nestloop = on
AS $body$
DECLARE
  place oid := to_regclass(chunks);
BEGIN
  RETURN (documents IS NULL OR to_regclass(documents) = target)
     AND EXISTS (SELECT FROM pg_constraint f
                  WHERE f.conrelid = place AND f.contype = 'f' AND f.confrelid = target
                    AND f.confkey = ARRAY(SELECT a.attnum FROM unnest(keys) WITH ORDINALITY AS u (c, n)
                                            JOIN pg_attribute a ON a.attrelid = target AND a.attname = u.c ORDER BY u.n)
                    AND f.conkey = ARRAY(SELECT a.attnum FROM unnest(chunk_keys) WITH ORDINALITY AS u (c, n)
                                           JOIN pg_attribute a ON a.attrelid = place AND a.attname = u.c ORDER BY u.n))
     AND EXISTS (SELECT FROM pg_class c JOIN pg_class d ON d.oid = target
                  WHERE c.oid = place AND CASE WHEN owner IS NULL THEN c.relowner = d.relowner ELSE pg_get_userbyid(c.relowner) = owner END)
     AND (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = target AND a.attname = ANY (columns)) = cardinality(columns)
     AND (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = place AND a.attname IN ('ordinal', 'start', 'content', 'embedding')) = 4;
END
$body$;
COMMENT ON FUNCTION gte_small.names_hold(pg_catalog.regclass, pg_catalog.text, pg_catalog.text, pg_catalog.name[], pg_catalog.name[], pg_catalog.name[], pg_catalog.name) IS
  'part of document search: whether a generated function still has the right names';

-- The statements of the trigger that keeps the chunks of a table's rows, for the names that tables and columns have
-- now. The trigger function is made with them. After a rename it makes them anew for each row, so that nothing is to be
-- done. They have a row, its text, its heading, and a number of tokens as parameters $1 to $4, or under other names.
--
-- "texts" reads text and heading of a row $1. "present" tells whether the document has chunks. "removal" deletes
-- them. "replacement" makes the chunks of the row $1 with the text $2, the heading $3 and at most $4 tokens: a part that
-- stays where and what it was is not touched, and one that only moved keeps its vector. All CTEs see the chunks
-- as they were before; the subquery on "gone" makes the DELETE come before the INSERT. "place" stands for the table
-- of the chunks where that is known only when the trigger fires.
CREATE FUNCTION gte_small.chunk_statements(
    target pg_catalog.regclass, owner pg_catalog.name, content pg_catalog.text, context pg_catalog.text,
    parameters pg_catalog.text[] DEFAULT '{($1),$2,$3,$4}', place pg_catalog.text DEFAULT NULL,
    OUT chunks pg_catalog.regclass, OUT texts pg_catalog.text, OUT present pg_catalog.text, OUT removal pg_catalog.text,
    OUT replacement pg_catalog.text)
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
  -- As in names_hold().
  SET plan_cache_mode = force_generic_plan SET enable_nestloop = on
AS $body$
DECLARE
  k record;
  contents name[] := gte_small.document_columns(target, content::name[]);
  contexts name[] := gte_small.document_columns(target, context::name[]);
  missing record;
  tbl text;
  with_heading bool;
BEGIN
  chunks := gte_small.chunks_of(target, owner);
  IF chunks IS NULL THEN
    RAISE EXCEPTION 'the table of the chunks of table % is gone, or has another owner', target
      USING ERRCODE = 'undefined_table', DETAIL = 'The chunks can''t be kept, so the row was not changed.',
            HINT = gte_small.enable_again(target, contents::text, contexts::text)
                   || format(' Or give up the search: SELECT disable_document_search(%L);', coalesce(pg_partition_root(target), target));
  END IF;
  SELECT u.c, u.relation, u.relation = chunks AS of_chunks INTO missing
    FROM (SELECT target AS relation, unnest(contents || contexts) AS c
          UNION ALL SELECT chunks, unnest('{ordinal,start,content,embedding}'::name[] || CASE WHEN contexts <> '{}' THEN '{heading}'::name[] END)) AS u
   WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = u.relation AND a.attname = u.c AND NOT a.attisdropped) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'column "%" of table % does not exist, and the chunks of documents need it', missing.c, missing.relation
      USING ERRCODE = 'undefined_column', DETAIL = 'The chunks can''t be kept, so the row was not changed.',
            HINT = CASE WHEN missing.of_chunks THEN 'If it was renamed, give it this name again. Otherwise make the chunks again: SELECT disable_document_search('
                                                    || quote_literal(coalesce(pg_partition_root(target), target)) || '); ' || gte_small.enable_again(target, contents::text, contexts::text)
                   ELSE 'Name the text columns of today: ' || gte_small.enable_again(target, '{}', '{}') END;
  END IF;
  SELECT string_agg(format('%s.%I operator(%I.%s) c.%I', parameters[1], a.attname, s.nspname, o.oprname, b.attname), ' and ' ORDER BY u.n) AS of_document,
         string_agg(quote_ident(b.attname), ', ' ORDER BY u.n) AS chunk_keys, string_agg(format('%s.%I', parameters[1], a.attname), ', ' ORDER BY u.n) AS keys
    INTO k
    FROM pg_constraint f
    JOIN pg_constraint p ON p.conrelid = f.conrelid AND p.contype = 'p' AND f.conkey <@ p.conkey
    CROSS JOIN unnest(f.confkey, f.conkey, f.conpfeqop) WITH ORDINALITY AS u (key, chunk_key, equals, n)
    JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = u.key
    JOIN pg_attribute b ON b.attrelid = f.conrelid AND b.attnum = u.chunk_key
    JOIN pg_operator o ON o.oid = u.equals JOIN pg_namespace s ON s.oid = o.oprnamespace
   WHERE f.conrelid = chunks AND f.contype = 'f' AND f.confrelid = target
   GROUP BY f.oid ORDER BY f.oid LIMIT 1;
  tbl := coalesce(place, (SELECT q.tbl FROM gte_small.qualified(chunks) q));
  with_heading := contexts <> '{}';
  texts := format('select %s, gte_small.heading(%s)', gte_small.text_of(parameters[1], contents), gte_small.text_of(parameters[1], contexts));
  present := format('select exists (select from %s c where %s)', tbl, k.of_document);
  removal := format('delete from %s c where %s', tbl, k.of_document);
  replacement := format($sql$
with b as materialized (select c.* from %1$s c where %2$s),
  n as materialized (select * from gte_small.chunk_text(%9$s, %10$s)),
  gone as (delete from %1$s c where %2$s and not exists (
    select from n where (n.ordinal, n.start) = (c.ordinal, c.start) and n.chunk collate "C" = c.content collate "C" %3$s) returning 1)
insert into %1$s (%5$s, ordinal, start, content%6$s, embedding)
select %7$s, n.ordinal, n.start, n.chunk%8$s, v.embedding
  from n
  left join (select distinct on (b.content collate "C") b.content, b.embedding from b where b.embedding is not null %4$s
              order by b.content collate "C") v on v.content collate "C" = n.chunk collate "C"
 where not exists (select from b where (b.ordinal, b.start) = (n.ordinal, n.start) and b.content collate "C" = n.chunk collate "C" %4$s)
   and (select count(*) from gone) >= 0
 order by n.ordinal$sql$,
    tbl, k.of_document, CASE WHEN with_heading THEN format('and c.heading collate "C" is not distinct from %s collate "C"', parameters[3]) END,
    CASE WHEN with_heading THEN format('and b.heading collate "C" is not distinct from %s collate "C"', parameters[3]) END,
    k.chunk_keys, CASE WHEN with_heading THEN ', heading' END, k.keys, CASE WHEN with_heading THEN ', ' || parameters[3] END, parameters[2], parameters[4]);
END
$body$;
COMMENT ON FUNCTION gte_small.chunk_statements(pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.text, pg_catalog.text[], pg_catalog.text) IS
  'part of document search: the statements of the trigger that keeps the chunks';

-- The body of the trigger function. It is SECURITY DEFINER and belongs to the table's owner, so that a role that
-- changes documents needs no rights on the chunks. Its search_path is pg_catalog, and all other names are qualified.
-- Rows are only compared and stored.
CREATE FUNCTION gte_small.chunk_body(chunks pg_catalog.regclass, content pg_catalog.name[], context pg_catalog.name[])
  RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  k record;
  s record;
  former record;
  owner name := (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = chunks);
  columns CONSTANT name[] := ARRAY(SELECT DISTINCT u.c FROM unnest(content || context) AS u (c) ORDER BY u.c);
  named text;
  of_row text := 'gte_small.chunk_statements(tg_relid, current_user, tg_argv[0], tg_argv[1])';
  constants text;
  key_changed text;
BEGIN
  SELECT * INTO k FROM gte_small.document_keys(chunks);
  SELECT * INTO s FROM gte_small.chunk_statements(k.target, owner, content::text, context::text, '{new,body,head,gte_small.room_below(head)}');
  SELECT * INTO former FROM gte_small.chunk_statements(k.target, owner, content::text, context::text, '{old,body,head,room}');
  named := format('gte_small.names_hold(tg_relid, null, %L, %L, %L, %L, current_user)',
                  (SELECT q.tbl FROM gte_small.qualified(chunks) q), k.keys, k.chunk_keys, columns);
  IF gte_small.is_distributed(k.target) THEN
    named := 'false';
    SELECT * INTO constants, of_row FROM gte_small.call_of_shard_statements(chunks, content, context);
    key_changed := gte_small.moves_chunks(chunks);
  END IF;
  RETURN format($sql$
#variable_conflict use_variable
declare
  s record;
  body text;
  head text;
  former_body text;
  former_head text;
  present bool;
  named bool := %2$s;%10$s
begin
  if not named then
    select * into s from %3$s;
  end if;
  -- A row that moves to another partition is a DELETE and an INSERT. The foreign key would change the key of its
  -- chunks, but only after the INSERT has made them.
  if tg_op = 'DELETE' then
    if named then
      %5$s;
    else
      execute s.removal using old;
    end if;
    return null;
  end if;
  if named then
    %6$s into body, head;
  else
    execute s.texts into body, head using new;
  end if;
  if tg_op = 'UPDATE' then%4$s
    if named then
      %7$s into former_body, former_head;
    else
      execute s.texts into former_body, former_head using old;
    end if;
    if body collate "C" is not distinct from former_body collate "C" and head collate "C" is not distinct from former_head collate "C" then
      if named then
        %8$s into present;
      else
        execute s.present into present using new;
      end if;
      if present then
        return null;
      end if;
    end if;
  end if;
  -- The embedding trigger leaves a vector that comes along. It was the model's before, so it is not noted as one of
  -- unknown origin.
  if named then
    perform gte_small.own_write(%1$L, true);
    %9$s;
  else
    perform gte_small.own_write(s.chunks, true);
    execute s.replacement using new, body, head, gte_small.room_below(head);
  end if;
  perform gte_small.own_write_end();
  return null;
end
$sql$, (SELECT q.tbl FROM gte_small.qualified(chunks) q), named, of_row, key_changed, former.removal, s.texts, former.texts, s.present, s.replacement, constants);
END
$body$;
COMMENT ON FUNCTION gte_small.chunk_body(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name[]) IS
  'part of enable_document_search: the trigger function that keeps the chunks';

-- BEFORE INSERT trigger of a chunks table. A dump of the data alone loads the documents, whose trigger makes their
-- chunks, and then the chunks: such a row is no second chunk. Its embedding is taken if there is none. If the dump
-- has another chunk in its place, the chunk of today's text and model stays. Runs with the rights of the role
-- that loads.
CREATE FUNCTION gte_small.accept_chunk() RETURNS trigger
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  k record;
  place text;
  present bool;
BEGIN
  -- From the trigger on the documents.
  IF pg_trigger_depth() > 1 THEN
    RETURN new;
  END IF;
  SELECT * INTO k FROM gte_small.document_keys(tg_relid);
  place := (SELECT string_agg(format('($1).%I %s c.%I', u.chunk_key, u.equals, u.chunk_key), ' AND ' ORDER BY n)
              FROM unnest(k.chunk_keys, k.operators) WITH ORDINALITY AS u (chunk_key, equals, n));
  EXECUTE format('SELECT EXISTS (SELECT FROM ONLY %s c WHERE %s AND c.ordinal = ($1).ordinal)', tg_relid::regclass, place) INTO present USING new;
  IF NOT present THEN
    RETURN new;
  END IF;
  EXECUTE format('UPDATE ONLY %s c SET embedding = ($1).embedding WHERE %s AND c.ordinal = ($1).ordinal AND c.start = ($1).start '
                 'AND c.content COLLATE "C" = ($1).content COLLATE "C" AND c.embedding IS NULL AND ($1).embedding IS NOT NULL%s',
                 tg_relid::regclass, place,
                 CASE WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = tg_relid AND a.attname = 'heading' AND NOT a.attisdropped)
                      THEN ' AND c.heading COLLATE "C" IS NOT DISTINCT FROM ($1).heading COLLATE "C"' END) USING new;
  RETURN NULL;
END
$body$;
COMMENT ON FUNCTION gte_small.accept_chunk() IS
  'part of document search: BEFORE INSERT trigger on chunks that leaves out those that exist';

CREATE FUNCTION gte_small.table_of_rows(row_type pg_catalog.regtype) RETURNS pg_catalog.regclass
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
BEGIN
  RETURN (SELECT t.typrelid FROM pg_type t WHERE t.oid = row_type);
END
$body$;
COMMENT ON FUNCTION gte_small.table_of_rows(pg_catalog.regtype) IS
  'part of document search: the table that has a row type';

-- Privileges on documents that are granted after the search was enabled are none on their chunks.
CREATE FUNCTION gte_small.check_reader(chunks pg_catalog.regclass) RETURNS pg_catalog.void
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
BEGIN
  IF NOT has_table_privilege(chunks, 'SELECT') THEN
    RAISE EXCEPTION 'permission denied for table %', chunks
      USING ERRCODE = 'insufficient_privilege', DETAIL = 'It holds the chunks that this search reads; a policy shows each role those of the documents that it sees.',
            HINT = format('GRANT SELECT ON %s TO %I;', chunks, current_user);
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.check_reader(pg_catalog.regclass) IS
  'part of document search: refuses a role that may not read the chunks';

-- The statement of a search function, for the names that tables and columns have now. The rows are read once, at the
-- end, by their places. "row_type" is that of the documents.
CREATE FUNCTION gte_small.documents_query(row_type pg_catalog.regtype) RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  target CONSTANT regclass := gte_small.table_of_rows(row_type);
  chunks CONSTANT regclass := gte_small.chunks_of(target);
BEGIN
  IF chunks IS NULL THEN
    RAISE EXCEPTION 'the table of the chunks of table % is gone', target
      USING ERRCODE = 'undefined_table', DETAIL = 'There is nothing to search.',
            HINT = coalesce((SELECT gte_small.enable_again(target, d.arguments[1], d.arguments[2]) FROM gte_small.document_search(target) d
                              WHERE d.arguments IS NOT NULL), gte_small.enable_again(target, '{}', '{}'));
  END IF;
  PERFORM gte_small.check_reader(chunks);
  RETURN (SELECT format($sql$
  select (e.*)::%1$s, c.ordinal, c.start, c.content, least(1, operator(pg_catalog.-) u.d)
    from gte_small.nearest_documents(%2$L::pg_catalog.regclass, %3$L, gte_small.embed_query($1), gte_small.count_of($3), gte_small.bound($2), $4) n
    cross join rows from (pg_catalog.unnest(n.parts), pg_catalog.unnest(n.documents), pg_catalog.unnest(n.places), pg_catalog.unnest(n.distances))
      u (part, document, place, d)
    join %5$s e on e.ctid operator(pg_catalog.=) u.document and e.tableoid operator(pg_catalog.=) u.part
    join only %4$s c on c.ctid operator(pg_catalog.=) u.place
   where u.d operator(pg_catalog.<) gte_small.bound($2)
   order by u.d, %6$s limit gte_small.count_of($3)$sql$,
         d.tbl, chunks, gte_small.searches_halfvec(chunks, 'embedding'), c.tbl, d.rows_of,
         (SELECT string_agg(format('e.%I', u.c), ', ' ORDER BY n) FROM unnest(k.keys) WITH ORDINALITY AS u (c, n)))
    FROM gte_small.document_keys(chunks) k CROSS JOIN LATERAL gte_small.qualified(k.target) d CROSS JOIN gte_small.qualified(chunks) c);
END
$body$;
COMMENT ON FUNCTION gte_small.documents_query(pg_catalog.regtype) IS
  'part of document search: the statement of a search function';

-- The body of the search function. The type of its result follows renames.
CREATE FUNCTION gte_small.query_body(chunks pg_catalog.regclass) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT CASE WHEN gte_small.is_distributed(k.target) THEN $sql$
#variable_conflict use_column
begin
  -- In the place of gte_small.documents_query(regtype), which reads rows by their places.
  return query select n.document, n.ordinal, n.start, n.chunk, least(1, operator(pg_catalog.-) n.d)
    from gte_small.documents_of_shards(document, gte_small.embed_query($1), gte_small.count_of($3), gte_small.bound($2), $4) n;
end
$sql$
  ELSE format($sql$
#variable_conflict use_column
begin
  if gte_small.names_hold(gte_small.table_of_rows(pg_catalog.pg_typeof(document)), %1$L, %2$L, %3$L, %4$L, '{}', null) then
    perform gte_small.check_reader(%2$L);
    return query %5$s;
  else
    return query execute gte_small.documents_query(pg_catalog.pg_typeof(document)) using $1, $2, $3, $4;
  end if;
end
$sql$, d.tbl, c.tbl, k.keys, k.chunk_keys, gte_small.documents_query(d.reltype)) END
    FROM gte_small.document_keys(chunks) k CROSS JOIN LATERAL (
      SELECT q.tbl, r.reltype FROM gte_small.qualified(k.target) q, pg_class r WHERE r.oid = k.target) d
    CROSS JOIN gte_small.qualified(chunks) c
$body$;
COMMENT ON FUNCTION gte_small.query_body(pg_catalog.regclass) IS
  'part of enable_document_search: the search function';

-- The places of the nearest documents and of the best chunk of each, in any order; there can be more than "most".
--
-- The nearest chunks come from the index, joined with their documents: those that the filter and the policies
-- let through. If they belong to too few documents, once more of them are read. Then all chunks of these
-- documents are compared: with many chunks a document, or few documents that pass, no number of chunks is enough.
-- The planner chooses where to begin: a filter that few documents pass takes its own index.
--
-- As for nearest_places(), EXECUTE plans for the values at hand, no search_path is set, and the SET clause begins the
-- level of scan_settings().
CREATE FUNCTION gte_small.nearest_documents(
    chunks pg_catalog.regclass, half pg_catalog.bool, wanted vector, most pg_catalog.int4, bound pg_catalog.float8, filter pg_catalog.jsonb,
    OUT parts pg_catalog.oid[], OUT documents pg_catalog.tid[], OUT places pg_catalog.tid[], OUT distances pg_catalog.float8[])
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET plan_cache_mode = force_custom_plan
AS $body$
DECLARE
  -- $1 is the vector, $2 a number of rows, $3 the bound.
  collected CONSTANT pg_catalog.text :=
    'select pg_catalog.array_agg(s.part), pg_catalog.array_agg(s.document), pg_catalog.array_agg(s.place), pg_catalog.array_agg(s.d)';
  joined CONSTANT pg_catalog.text :=
    'select e.tableoid as part, e.ctid as document, c.ctid as place, gte_small.%s(c.embedding, $1) as d, c.ordinal, %s '
      -- Documents first: who locks the tables takes them in this order.
      'from %s e join only %s c on %s where c.embedding is not null%s';
  by_key CONSTANT pg_catalog.bool := gte_small.sorts_by_index_and_key() AND NOT half;
  second CONSTANT pg_catalog.text := gte_small.second_condition(chunks, 'embedding', 'c');
  measure CONSTANT pg_catalog.text := CASE WHEN half THEN 'exact_distance' ELSE 'distance' END;
  slack CONSTANT pg_catalog.float8 := gte_small.order_error(half);
  conditions pg_catalog.text;
  k pg_catalog.record;
  rows_of pg_catalog.text;
  key_columns pg_catalog.text := '';
  key_names pg_catalog.text := '';
  sorted pg_catalog.text := '';
  one pg_catalog.text;
  nearest pg_catalog.text;
  statement pg_catalog.text;
  scans pg_catalog.int8;
  reach pg_catalog.int4;
  seen pg_catalog.int4;
  passing pg_catalog.int4;
  -- Those nearer than the last chunk: none at their distance was left out.
  certain pg_catalog.int4;
  furthest pg_catalog.float8;
BEGIN
  IF most OPERATOR(pg_catalog.=) 0 OR wanted IS NULL THEN
    RETURN;
  END IF;
  SELECT d.* INTO k FROM gte_small.document_keys(chunks) d;
  conditions := gte_small.conditions(k.target, filter);
  rows_of := pg_catalog.format('%s%s', CASE WHEN (SELECT c.relkind FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) k.target)
                                                 OPERATOR(pg_catalog.=) 'r' THEN 'only ' ELSE '' END, k.target);
  FOREACH one IN ARRAY k.chunk_keys LOOP
    key_names := pg_catalog.concat(key_names, CASE WHEN key_names OPERATOR(pg_catalog.<>) '' THEN ', ' END,
                                   'k', pg_catalog.length(key_names));
    key_columns := pg_catalog.concat(key_columns, CASE WHEN key_columns OPERATOR(pg_catalog.<>) '' THEN ', ' END,
                                     pg_catalog.format('c.%I as %s', one, pg_catalog.split_part(key_names, ', ', -1)));
    sorted := pg_catalog.concat(sorted, pg_catalog.format(', c.%I', one));
  END LOOP;

  nearest := pg_catalog.format('%s order by gte_small.%s(c.embedding, $1)%s limit $2',
    pg_catalog.format(joined, measure, key_columns, rows_of, chunks, k.joined, conditions),
    CASE WHEN half THEN 'half_distance' ELSE 'distance' END, CASE WHEN by_key THEN sorted ELSE '' END);
  IF second IS NOT NULL THEN
    -- As in nearest_places(): the rows that copies of a vector hide from the index are in a second one.
    nearest := pg_catalog.format('select * from ((%s) union (%s order by gte_small.second_distance(c.embedding, $1) limit $2)) u order by u.d, %s limit $2',
      nearest, pg_catalog.format(joined, measure, key_columns, rows_of, chunks, k.joined, pg_catalog.concat(conditions, ' and ', second)), key_names);
  END IF;
  reach := LEAST(4::pg_catalog.int8 OPERATOR(pg_catalog.*) most, 2147483647);
  FOR round IN 1 .. 2 LOOP
    statement := collected OPERATOR(pg_catalog.||) pg_catalog.format(
      ', coalesce(pg_catalog.max(s.seen), 0)::pg_catalog.int4, pg_catalog.count(*) filter (where s.d operator(pg_catalog.<) $3)::pg_catalog.int4, '
      'pg_catalog.count(*) filter (where s.d operator(pg_catalog.<) (s.furthest operator(pg_catalog.-) $4) and s.d operator(pg_catalog.<) $3)::pg_catalog.int4, pg_catalog.max(s.furthest) '
      'from (select distinct on (%1$s) n.part, n.document, n.place, n.d, pg_catalog.count(*) over () as seen, pg_catalog.max(n.d) over () as furthest '
      'from (%2$s) n order by %1$s, n.d, n.ordinal) s', key_names, nearest);
    scans := gte_small.index_scans();
    PERFORM gte_small.scan_settings(chunks, reach);
    EXECUTE statement INTO parts, documents, places, distances, seen, passing, certain, furthest USING wanted, reach, bound, slack;
    -- Enough, or a chunk beyond the threshold, or all chunks.
    IF certain OPERATOR(pg_catalog.>=) most OR by_key AND passing OPERATOR(pg_catalog.>=) most
       OR seen OPERATOR(pg_catalog.=) reach AND furthest OPERATOR(pg_catalog.>=) (bound OPERATOR(pg_catalog.+) slack)
       OR seen OPERATOR(pg_catalog.<) reach AND scans OPERATOR(pg_catalog.=) gte_small.index_scans() THEN
      RETURN;
    END IF;
    EXIT WHEN seen OPERATOR(pg_catalog.<) reach;
    reach := LEAST(8::pg_catalog.int8 OPERATOR(pg_catalog.*) reach, 2147483647);
  END LOOP;
  EXECUTE collected OPERATOR(pg_catalog.||) pg_catalog.format(
    ' from (select u.* from (select distinct on (%1$s) n.* from (%2$s) n order by %1$s, n.d, n.ordinal) u '
    'where u.d operator(pg_catalog.<) $3 order by u.d, %1$s limit $2) s', key_names,
    pg_catalog.format(joined, 'exact_distance', key_columns, rows_of, chunks, k.joined, conditions))
    INTO parts, documents, places, distances USING wanted, most, bound;
END
$body$;
COMMENT ON FUNCTION gte_small.nearest_documents(pg_catalog.regclass, pg_catalog.bool, vector, pg_catalog.int4, pg_catalog.float8, pg_catalog.jsonb) IS
  'part of document search: the places of the nearest documents and of their best chunks';
