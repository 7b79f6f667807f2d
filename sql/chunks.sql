-- Semantic search in texts of any length, by their parts.
--
--   insert into documents (title, content) values ('Handbook', '... a hundred pages ...');
--   select (document).title, chunk, similarity from query_documents('how do I return a laptop?', 0.8, 5);
--
-- Two tables. documents holds the texts; a trigger keeps their parts in chunks, each short enough
-- for the model to read, with its embedding. query_documents searches the parts and returns each
-- document once, with its best part. For a table of your own: select enable_document_search('manuals', 'body').
--
-- Needs the extension: create extension "gte-small" cascade. The script is one statement, so from any
-- client it creates all objects or none. They go into the current schema. Running it again changes
-- nothing. An existing table documents with a primary key and a column content is used unchanged.
--
-- What this script made in version 0.1.0 is brought over: the tables and the embeddings stay.

do $do$
declare
  -- The schemas of the tables and of this extension.
  here pg_catalog.text := pg_catalog.quote_ident(pg_catalog.current_schema()::pg_catalog.text);
  gte pg_catalog.text;
  searched pg_catalog.text := pg_catalog.current_setting('search_path');
  former pg_catalog.oid;
begin
  -- From here on unqualified names are looked up in pg_catalog only. A function that another role
  -- created in public would run with the rights of the role that runs this script.
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  select quote_ident(n.nspname::text) into gte from pg_extension e
    join pg_namespace n on n.oid = e.extnamespace where e.extname = 'gte-small';
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

  -- The form of 0.1.0: the trigger ran with the rights of whoever changed the document, so that a role that could
  -- read a document could write its chunks.
  former := to_regprocedure(here || '.chunk_document()');
  if exists (select from pg_trigger t where t.tgrelid = to_regclass(here || '.documents') and t.tgname = 'chunk_document' and t.tgfoid = former) then
    -- The strongest lock at once, of the documents first, as those take the locks who search and write.
    execute format('lock table %1$s.documents, %1$s.chunks in access exclusive mode', here);
    execute format('drop trigger chunk_document on %s.documents', here);
    execute format('drop function %s.chunk_document()', here);
    execute format('drop function if exists %s.query_documents(text, float8, int4)', here);
    execute format('comment on table %s.chunks is %L', here, gte_small.document_mark());
  end if;

  execute format('select %s.enable_document_search(%L, chunks_table => %L)', gte, here || '.documents', 'chunks');
  perform set_config('search_path', searched, true);
end
$do$;
