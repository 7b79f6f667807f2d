-- The table of the semantic-search tutorial, filled by a trigger and searched by query_embeddings:
--
--   insert into embeddings (content) values ('Reset your password on the account page.');
--   select content from query_embeddings('I forgot my login', 0.8, 3);
--
-- Needs the extension: create extension "gte-small" cascade. One statement, so that all of it is
-- made or nothing, from any client. Everything goes into the current schema. Running it again
-- changes nothing.

do $do$
declare
  -- Schema of the table; those of this extension and of pgvector.
  here pg_catalog.text := pg_catalog.quote_ident(pg_catalog.current_schema()::pg_catalog.text);
  gte pg_catalog.text;
  vec pg_catalog.text;
  searched pg_catalog.text := pg_catalog.current_setting('search_path');
  existing pg_catalog.oid;
  form record;
begin
  -- Names below are found in pg_catalog alone: a function format(text, text, text) or
  -- quote_ident(name) that somebody planted in public would run with the rights of whoever runs this.
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

  -- What is there already stays as it is, and must be a table this can work with.
  existing := to_regclass(here || '.embeddings');
  if existing is not null and (select relkind not in ('r', 'p') from pg_class where oid = existing)
     or 2 <> (select count(*) from pg_attribute
               where attrelid = existing and not attisdropped and attgenerated = '' and attidentity = ''
                 and (attname = 'content' and atttypid in ('text'::regtype, 'varchar'::regtype)
                      or attname = 'embedding' and atttypid = to_regtype(vec || '.vector') and atttypmod = 384))
        and existing is not null then
    raise exception 'relation "embeddings" exists and is not a table with content text and embedding vector(384)'
      using errcode = 'duplicate_table',
            detail = 'It was left as it is; nothing was made.',
            hint = 'Rename it, or SET search_path to another schema.';
  end if;
  for form in
    select to_regprocedure(format('%s.query_embeddings(%s, float8%s)', here, kind, more)) as found
      from unnest(array[vec || '.vector', 'text']) kind, unnest(array['', ', int4']) more
  loop
    if form.found is not null and not exists (
      select from pg_depend d join pg_extension e on e.oid = d.refobjid
       where d.classid = 'pg_proc'::regclass and d.objid = form.found and d.deptype = 'x'
         and d.refclassid = 'pg_extension'::regclass and e.extname = 'gte-small') then
      raise exception 'function % exists and is not gte-small''s', form.found
        using errcode = 'duplicate_function',
              detail = 'It was left as it is; nothing was made.',
              hint = 'Drop or rename it, and run this again.';
    end if;
  end loop;

  if existing is null then
    execute format('create table %s.embeddings (
      id bigint generated always as identity primary key,
      content text not null,
      embedding %s.vector(384)
    )', here, vec);
    execute format($sql$comment on table %s.embeddings is
      'texts and their embeddings: a trigger fills the embedding, query_embeddings searches'$sql$, here);
    -- Only the owner sees rows, until policies say who else sees which.
    execute format('alter table %s.embeddings enable row level security', here);
    existing := to_regclass(here || '.embeddings');
  end if;

  -- Inner product: on vectors of unit length it orders as the cosine does, and costs the least.
  -- Without a name, which an index of another kind may have taken.
  if not exists (select from pg_index i join pg_opclass c on c.oid = i.indclass[0] join pg_am m on m.oid = c.opcmethod
                  where i.indrelid = existing and i.indisvalid and i.indpred is null
                    and c.opcname = 'vector_ip_ops' and m.amname = 'hnsw') then
    execute format('create index on %s.embeddings using hnsw (embedding %s.vector_ip_ops)', here, vec);
  end if;

  -- The name sorts last among the row triggers: one that rewrites the content after this one
  -- would leave the vector of another text. No column list and no WHEN, for the same reason.
  execute format($sql$create or replace trigger zzz_gte_small_embedding
    before insert or update on %s.embeddings
    for each row execute function %s.embed_trigger('embedding', 'content')$sql$, here, gte);
  execute format($sql$comment on trigger zzz_gte_small_embedding on %s.embeddings is
    'gte-small: embeds content into embedding'$sql$, here);

  -- Two arities for each kind of argument. With two arguments, a WHERE around the call is pushed
  -- down and a LIMIT around it reaches the index; with match_count the index serves the call in
  -- every shape, also from RPC clients and in generic plans. Both run the model once.
  --
  -- Plain SQL, not STRICT and without SET, so that they are inlined: otherwise each call scans and
  -- sorts the whole table. Hence every name and operator is qualified. $1 and not the parameter's
  -- name, because "embedding" alone would mean the column and match every row.
  for form in
    select * from (values
      (format('embedding %s.vector', vec), '$1', 'vector'),
      ('search pg_catalog.text', format('%s.embed_query($1)', gte), 'text')
    ) as forms (argument, vector, kind)
  loop
    execute format($sql$
      create or replace function %1$s.query_embeddings(%2$s, match_threshold pg_catalog.float8)
      returns setof %1$s.embeddings language sql stable parallel safe as $body$
with q as materialized (select %3$s as v)
select e.* from %1$s.embeddings e
where e.embedding operator(%4$s.<#>) (select v from q)
  operator(pg_catalog.<) operator(pg_catalog.-) coalesce($2, '-infinity')
order by e.embedding operator(%4$s.<#>) (select v from q)
      $body$ $sql$, here, form.argument, form.vector, vec);
    execute format($sql$comment on function %s.query_embeddings(%s, pg_catalog.float8) is
      'rows by similarity to a %s, the most similar first, those above match_threshold'
      $sql$, here, form.argument, form.kind);
    execute format('alter function %s.query_embeddings(%s, pg_catalog.float8)
      depends on extension "gte-small"', here, form.argument);

    -- The filter follows the sort key, so LIMIT inside and threshold outside give the same rows
    -- as the other way round. "+ 0" sorts again what hnsw.iterative_scan = relaxed_order returns
    -- out of order.
    execute format($sql$
      create or replace function %1$s.query_embeddings(%2$s, match_threshold pg_catalog.float8, match_count pg_catalog.int4)
      returns setof %1$s.embeddings language sql stable parallel safe as $body$
select (s.r).* from (
  select (e.*)::%1$s.embeddings as r, e.embedding operator(%4$s.<#>) (select %3$s) as d
  from %1$s.embeddings e order by d limit $3) s
where s.d operator(pg_catalog.<) operator(pg_catalog.-) coalesce($2, '-infinity')
order by s.d operator(pg_catalog.+) 0::pg_catalog.float8
      $body$ $sql$, here, form.argument, form.vector, vec);
    execute format($sql$comment on function %s.query_embeddings(%s, pg_catalog.float8, pg_catalog.int4) is
      'the match_count rows most similar to a %s, of them those above match_threshold'
      $sql$, here, form.argument, form.kind);
    execute format('alter function %s.query_embeddings(%s, pg_catalog.float8, pg_catalog.int4)
      depends on extension "gte-small"', here, form.argument);
  end loop;
  perform set_config('search_path', searched, true);
end
$do$;
