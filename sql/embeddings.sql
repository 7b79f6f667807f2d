-- The table of the semantic-search tutorial. A trigger fills it, and query_embeddings searches it:
--
--   insert into embeddings (content) values ('Reset your password on the account page.');
--   select content from query_embeddings('I forgot my login', 0.8, 3);
--
-- Needs the extension: create extension "gte-small" cascade. The script is one statement, so from any
-- client it creates all objects or none. They go into the current schema. Running it again changes
-- nothing.

do $do$
declare
  -- The schemas of the table, of this extension and of pgvector.
  here pg_catalog.text := pg_catalog.quote_ident(pg_catalog.current_schema()::pg_catalog.text);
  gte pg_catalog.text;
  vec pg_catalog.text;
  searched pg_catalog.text := pg_catalog.current_setting('search_path');
begin
  -- From here on unqualified names are looked up in pg_catalog only. A function format(text, text, text)
  -- or quote_ident(name) that another role created in public would run with the rights of the role that
  -- runs this script.
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  select quote_ident(n.nspname::text) into gte from pg_extension e
    join pg_namespace n on n.oid = e.extnamespace where e.extname = 'gte-small';
  select quote_ident(n.nspname::text) into vec from pg_extension e
    join pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector';
  if gte is null then
    raise exception 'extension "gte-small" is not installed in this database'
      using errcode = 'undefined_object',
            detail = 'The search functions would have nothing to embed with.',
            hint = 'Run CREATE EXTENSION "gte-small" CASCADE first.';
  end if;
  if here is null then
    raise exception 'no schema of the search_path exists'
      using errcode = 'invalid_schema_name',
            detail = 'The table would have no place; nothing was made.',
            hint = 'SET search_path to the schema that is to hold the table.';
  end if;

  -- An existing table stays unchanged.
  if to_regclass(here || '.embeddings') is null then
    execute format('create table %s.embeddings (
      id bigint generated always as identity primary key,
      content text not null,
      embedding %s.vector(384)
    )', here, vec);
    execute format($sql$comment on table %s.embeddings is
      'texts and their embeddings: a trigger fills the embedding, query_embeddings searches'$sql$, here);
    -- Only the owner sees rows until policies allow more.
    execute format('alter table %s.embeddings enable row level security', here);
  end if;
  execute format('select %s.enable_semantic_search(%L)', gte, here || '.embeddings');
  perform set_config('search_path', searched, true);
end
$do$;
