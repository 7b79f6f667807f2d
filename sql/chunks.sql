-- Semantic search in texts of any length, by their parts.
--
--   insert into documents (title, content) values ('Handbook', '... a hundred pages ...');
--   select (document).title, chunk, similarity from query_documents('how do I return a laptop?', 0.8, 5);
--
-- Two tables. documents holds the texts; a trigger keeps their parts in chunks, each short enough
-- for the model to read, with its embedding. query_documents searches the parts and returns each
-- document once, with its best part.
--
-- Needs the extension: create extension "gte-small" cascade. The script is one statement, so from any
-- client it creates all objects or none. They go into the current schema. Running it again changes
-- nothing. An existing table documents (id bigint primary key, content text, ...) is used
-- unchanged; to split the texts it has: update documents set content = content.

do $do$
declare
  -- The schemas of the tables, of this extension and of pgvector.
  here pg_catalog.text := pg_catalog.quote_ident(pg_catalog.current_schema()::pg_catalog.text);
  gte pg_catalog.text;
  vec pg_catalog.text;
  searched pg_catalog.text := pg_catalog.current_setting('search_path');
begin
  -- From here on unqualified names are looked up in pg_catalog only. A function that another role
  -- created in public would run with the rights of the role that runs this script.
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  select quote_ident(n.nspname::text) into gte from pg_extension e
    join pg_namespace n on n.oid = e.extnamespace where e.extname = 'gte-small';
  select quote_ident(n.nspname::text) into vec from pg_extension e
    join pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector';
  if gte is null then
    raise exception 'extension "gte-small" is not installed in this database'
      using errcode = 'undefined_object',
            detail = 'The search function would have nothing to embed with.',
            hint = 'Run CREATE EXTENSION "gte-small" CASCADE first.';
  end if;
  if here is null then
    raise exception 'no schema of the search_path exists'
      using errcode = 'invalid_schema_name',
            detail = 'The tables would have no place; nothing was made.',
            hint = 'SET search_path to the schema that is to hold the tables.';
  end if;

  -- Names of schemas are inserted into dollar-quoted function bodies.
  if position('$' in here || vec) > 0 then
    raise exception 'a schema has a dollar sign in its name: % or %', here, vec
      using errcode = 'invalid_schema_name',
            detail = 'Functions with it in their bodies could not be written; nothing was made.',
            hint = 'SET search_path to another schema.';
  end if;

  if to_regclass(here || '.documents') is null then
    execute format('create table %s.documents (
      id bigint generated always as identity primary key,
      title text,
      content text not null
    )', here);
    execute format($sql$comment on table %s.documents is
      'long texts: a trigger keeps their parts in chunks, query_documents searches'$sql$, here);
    -- Only the owner sees rows until policies allow more.
    execute format('alter table %s.documents enable row level security', here);
  end if;

  if to_regclass(here || '.chunks') is null then
    execute format('create table %1$s.chunks (
      document_id bigint not null references %1$s.documents on update cascade on delete cascade,
      ordinal int not null,
      start int not null,
      content text not null,
      embedding %2$s.vector(384),
      primary key (document_id, ordinal)
    )', here, vec);
    execute format($sql$comment on table %s.chunks is
      'parts of documents: start counts characters from 1, a trigger fills the embedding'$sql$, here);
    -- A role that sees a document sees its parts, and may change them by changing the document.
    execute format('alter table %s.chunks enable row level security', here);
    execute format('create policy of_visible_documents on %1$s.chunks
      using (exists (select from %1$s.documents d where d.id = chunks.document_id))', here);
  end if;
  execute format('select %s.enable_semantic_search(%L)', gte, here || '.chunks');

  -- Runs with the rights of the role that changes the document. It is an AFTER trigger, so it sees the
  -- stored text.
  execute format($sql$
    create or replace function %1$s.chunk_document() returns trigger
      language plpgsql
      set search_path = pg_catalog, pg_temp
      -- The planner can't know how many parts a text has; a hash join is fast for any number.
      set enable_nestloop = off
    as $body$
declare
  before %1$s.chunks[];
begin
  if tg_op = 'UPDATE' then
    if new.content collate "C" is not distinct from old.content collate "C"
       and exists (select from %1$s.chunks c where c.document_id = new.id) then
      return null;
    end if;
    before := array(select c from %1$s.chunks c where c.document_id = new.id order by c.ordinal);
    -- A part that stays where and what it was is not touched.
    delete from %1$s.chunks c where c.document_id = new.id and not exists (
      select from gte_small.chunk_text(new.content) n
       where (n.ordinal, n.start) = (c.ordinal, c.start) and n.chunk collate "C" = c.content collate "C");
  end if;
  -- One that only moved keeps its vector: the embedding trigger leaves a vector that comes along. It was the
  -- model's before, so it is not noted as one of unknown origin.
  perform gte_small.own_write(%2$L, true);
  insert into %1$s.chunks (document_id, ordinal, start, content, embedding)
  select new.id, n.ordinal, n.start, n.chunk,
         b.embedding
    from gte_small.chunk_text(new.content) n
    left join (select distinct on (u.content collate "C") u.content, u.embedding from unnest(before) u
                where u.embedding is not null order by u.content collate "C") b
      on b.content collate "C" = n.chunk collate "C"
   where not exists (select from %1$s.chunks c where c.document_id = new.id and c.ordinal = n.ordinal)
   order by n.ordinal;
  perform gte_small.own_write_end();
  return null;
end
    $body$ $sql$, here, here || '.chunks');
  execute format($sql$comment on function %s.chunk_document() is
    'AFTER trigger on documents that keeps their parts in chunks'$sql$, here);
  execute format('alter function %s.chunk_document() depends on extension "gte-small"', here);
  execute format('create or replace trigger chunk_document after insert or update on %1$s.documents
    for each row execute function %1$s.chunk_document()', here);

  -- The nearest parts come from the index. If they are of fewer than match_count documents, more parts
  -- are read. The plans are custom plans: in a generic plan the planner does not know the LIMIT, and
  -- scans the table instead of using the index.
  execute format($sql$
    create or replace function %1$s.query_documents(
        search text, match_threshold float8 default null, match_count int default 10)
      returns table (document %1$s.documents, ordinal int, start int, chunk text, similarity float8)
      language plpgsql stable parallel safe
      set search_path = pg_catalog, pg_temp
      set plan_cache_mode = force_custom_plan
      set hnsw.iterative_scan = strict_order
    as $body$
#variable_conflict use_column
declare
  -- A record, because the type's schema can be renamed.
  asked record;
  most int := least(greatest(coalesce(match_count, 10000), 0), 10000);
  parts bigint := 4 * most;
  found record;
begin
  select gte_small.embed_query(search) as v into asked;
  loop
    select count(distinct p.document_id) as documents, count(*) as parts into found
      from (select c.document_id from %1$s.chunks c
             order by gte_small.distance(c.embedding, asked.v) limit parts) p;
    exit when found.documents >= most or found.parts < parts;
    parts := 4 * parts;
  end loop;
  return query
    select d, best.ordinal, best.start, best.content, -best.distance
      from (select distinct on (p.document_id) p.*
              from (select c.document_id, c.ordinal, c.start, c.content, gte_small.distance(c.embedding, asked.v) as distance
                      from %1$s.chunks c order by distance limit parts) p
             order by p.document_id, p.distance, p.ordinal) best
      join %1$s.documents d on d.id = best.document_id
     where best.distance < -coalesce(match_threshold, '-infinity')
     order by best.distance, d.id
     limit most;
end
    $body$ $sql$, here);
  execute format($sql$comment on function %s.query_documents(text, float8, int4) is
    'the match_count documents most similar to a text, each with its best part, those above match_threshold'
    $sql$, here);
  execute format('alter function %s.query_documents(text, float8, int4) depends on extension "gte-small"', here);
  perform set_config('search_path', searched, true);
end
$do$;
