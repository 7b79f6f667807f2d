-- The functions that enable_document_search() makes for a table, and the search they call.

-- The text of several columns of a row, as SQL: joined by newlines, as embed_trigger() joins them.
CREATE FUNCTION gte_small.text_of(row_name pg_catalog.text, columns pg_catalog.name[]) RETURNS pg_catalog.text
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT CASE WHEN columns = '{}' THEN 'NULL::pg_catalog.text'
         ELSE format('pg_catalog.concat_ws(pg_catalog.chr(10), %s)',
                     (SELECT string_agg(format('%I.%I::pg_catalog.text', row_name, c), ', ' ORDER BY n) FROM unnest(columns) WITH ORDINALITY AS u (c, n))) END
$body$;
COMMENT ON FUNCTION gte_small.text_of(pg_catalog.text, pg_catalog.name[]) IS
  'part of enable_document_search: the expression of a document''s text';

-- The body of the trigger function. It is SECURITY DEFINER and belongs to the table's owner, so that a role that
-- changes documents needs no rights on the chunks. All names in it were fixed when it was made, and its
-- search_path is pg_catalog. Rows are only compared and stored.
CREATE FUNCTION gte_small.chunk_body(chunks pg_catalog.regclass, content pg_catalog.name[], context pg_catalog.name[])
  RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
DECLARE
  k record;
  of_document text;
  replaced text;
  partitioned bool;
  heading bool := context <> '{}';
BEGIN
  SELECT * INTO k FROM gte_small.document_keys(chunks);
  partitioned := EXISTS (SELECT FROM pg_class d WHERE d.oid = k.target AND d.relkind = 'p');
  SELECT string_agg(format('new.%I %s c.%I', u.key, u.equals, u.chunk_key), ' and ' ORDER BY n),
         string_agg(format('old.%I %s c.%I', u.key, u.equals, u.chunk_key), ' and ' ORDER BY n)
    INTO of_document, replaced
    FROM unnest(k.keys, k.chunk_keys, k.operators) WITH ORDINALITY AS u (key, chunk_key, equals, n);
  RETURN format($sql$
declare
  body text;
  head text;
  room int;
  before %1$s[];
begin
%3$s  body := %4$s;
  head := gte_small.heading(%5$s);
  if tg_op = 'UPDATE' then
    if body collate "C" is not distinct from %6$s collate "C" and head collate "C" is not distinct from gte_small.heading(%7$s) collate "C"
       and exists (select from %1$s c where %2$s) then
      return null;
    end if;
  end if;
  room := gte_small.room_below(head);
  if tg_op = 'UPDATE' then
    before := array(select c from %1$s c where %2$s order by c.ordinal);
    -- A part that stays where and what it was is not touched.
    delete from %1$s c where %2$s and not exists (
      select from gte_small.chunk_text(body, room) n
       where (n.ordinal, n.start) = (c.ordinal, c.start) and n.chunk collate "C" = c.content collate "C"%8$s);
  end if;
  -- One that only moved keeps its vector: the embedding trigger leaves a vector that comes along. It was the
  -- model's before, so it is not noted as one of unknown origin.
  perform gte_small.own_write(%13$L, true);
  insert into %1$s (%9$s, ordinal, start, content%10$s, embedding)
  select %11$s, n.ordinal, n.start, n.chunk%12$s, b.embedding
    from gte_small.chunk_text(body, room) n
    left join (select distinct on (c.content collate "C") c.content, c.embedding from unnest(before) c
                where c.embedding is not null%8$s order by c.content collate "C") b
      on b.content collate "C" = n.chunk collate "C"
   where not exists (select from %1$s c where %2$s and c.ordinal = n.ordinal)
   order by n.ordinal;
  perform gte_small.own_write_end();
  return null;
end
$sql$,
    (SELECT q.tbl FROM gte_small.qualified(chunks) q), of_document,
    -- A row that moves to another partition is a DELETE and an INSERT. The foreign key would change the key of its
    -- chunks, but only after the INSERT has made them.
    CASE WHEN partitioned THEN format('  if tg_op = ''DELETE'' then
    delete from %s c where %s;
    return null;
  end if;
', (SELECT q.tbl FROM gte_small.qualified(chunks) q), replaced) END,
    gte_small.text_of('new', content), gte_small.text_of('new', context), gte_small.text_of('old', content), gte_small.text_of('old', context),
    CASE WHEN heading THEN ' and c.heading collate "C" is not distinct from head collate "C"' END,
    (SELECT string_agg(quote_ident(u.c), ', ' ORDER BY n) FROM unnest(k.chunk_keys) WITH ORDINALITY AS u (c, n)),
    CASE WHEN heading THEN ', heading' END,
    (SELECT string_agg(format('new.%I', u.c), ', ' ORDER BY n) FROM unnest(k.keys) WITH ORDINALITY AS u (c, n)),
    CASE WHEN heading THEN ', head' END, chunks);
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

-- The body of the search function. The rows are read once, at the end, by their places.
CREATE FUNCTION gte_small.query_body(chunks pg_catalog.regclass) RETURNS pg_catalog.text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  SET quote_all_identifiers = off
AS $body$
  SELECT format($sql$
#variable_conflict use_column
begin
  return query select (e.*)::%1$s, c.ordinal, c.start, c.content, least(1, operator(pg_catalog.-) u.d)
    from gte_small.nearest_documents(%2$L::pg_catalog.regclass, %3$L, gte_small.embed_query($1), gte_small.count_of($3), gte_small.bound($2), $4) n
    cross join rows from (pg_catalog.unnest(n.parts), pg_catalog.unnest(n.documents), pg_catalog.unnest(n.places), pg_catalog.unnest(n.distances))
      u (part, document, place, d)
    join only %4$s c on c.ctid operator(pg_catalog.=) u.place
    join %5$s e on e.ctid operator(pg_catalog.=) u.document and e.tableoid operator(pg_catalog.=) u.part
   where u.d operator(pg_catalog.<) gte_small.bound($2)
   order by u.d, %6$s limit gte_small.count_of($3);
end
$sql$, d.tbl, chunks, gte_small.searches_halfvec(chunks, 'embedding'), c.tbl, d.rows_of,
         (SELECT string_agg(format('e.%I', u.c), ', ' ORDER BY n) FROM unnest(k.keys) WITH ORDINALITY AS u (c, n)))
    FROM gte_small.document_keys(chunks) k CROSS JOIN LATERAL gte_small.qualified(k.target) d CROSS JOIN gte_small.qualified(chunks) c
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
      'from only %s c join %s e on %s where c.embedding is not null%s';
  by_key CONSTANT pg_catalog.bool := gte_small.sorts_by_index_and_key();
  conditions pg_catalog.text;
  k pg_catalog.record;
  rows_of pg_catalog.text;
  key_columns pg_catalog.text := '';
  key_names pg_catalog.text := '';
  sorted pg_catalog.text := '';
  one pg_catalog.text;
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

  reach := LEAST(4::pg_catalog.int8 OPERATOR(pg_catalog.*) most, 2147483647);
  FOR round IN 1 .. 2 LOOP
    statement := collected OPERATOR(pg_catalog.||) pg_catalog.format(
      ', coalesce(pg_catalog.max(s.seen), 0)::pg_catalog.int4, pg_catalog.count(*) filter (where s.d operator(pg_catalog.<) $3)::pg_catalog.int4, '
      'pg_catalog.count(*) filter (where s.d operator(pg_catalog.<) s.furthest and s.d operator(pg_catalog.<) $3)::pg_catalog.int4, pg_catalog.max(s.furthest) '
      'from (select distinct on (%1$s) n.part, n.document, n.place, n.d, pg_catalog.count(*) over () as seen, pg_catalog.max(n.d) over () as furthest '
      'from (%2$s order by gte_small.%3$s(c.embedding, $1)%4$s limit $2) n order by %1$s, n.d, n.ordinal) s',
      key_names,
      pg_catalog.format(joined, CASE WHEN half THEN 'exact_distance' ELSE 'distance' END, key_columns, chunks, rows_of, k.joined, conditions),
      CASE WHEN half THEN 'half_distance' ELSE 'distance' END, CASE WHEN by_key THEN sorted ELSE '' END);
    scans := gte_small.index_scans();
    PERFORM gte_small.scan_settings(chunks, reach);
    EXECUTE statement INTO parts, documents, places, distances, seen, passing, certain, furthest USING wanted, reach, bound;
    -- Enough, or a chunk beyond the threshold, or all chunks.
    IF certain OPERATOR(pg_catalog.>=) most OR by_key AND passing OPERATOR(pg_catalog.>=) most
       OR seen OPERATOR(pg_catalog.=) reach AND furthest OPERATOR(pg_catalog.>=) bound
       OR seen OPERATOR(pg_catalog.<) reach AND scans OPERATOR(pg_catalog.=) gte_small.index_scans() THEN
      RETURN;
    END IF;
    EXIT WHEN seen OPERATOR(pg_catalog.<) reach;
    reach := LEAST(8::pg_catalog.int8 OPERATOR(pg_catalog.*) reach, 2147483647);
  END LOOP;
  EXECUTE collected OPERATOR(pg_catalog.||) pg_catalog.format(
    ' from (select u.* from (select distinct on (%1$s) n.* from (%2$s) n order by %1$s, n.d, n.ordinal) u '
    'where u.d operator(pg_catalog.<) $3 order by u.d, %1$s limit $2) s', key_names,
    pg_catalog.format(joined, 'exact_distance', key_columns, chunks, rows_of, k.joined, conditions))
    INTO parts, documents, places, distances USING wanted, most, bound;
END
$body$;
COMMENT ON FUNCTION gte_small.nearest_documents(pg_catalog.regclass, pg_catalog.bool, vector, pg_catalog.int4, pg_catalog.float8, pg_catalog.jsonb) IS
  'part of document search: the places of the nearest documents and of their best chunks';
