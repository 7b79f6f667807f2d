-- The table of the semantic-search tutorial. A trigger fills it, and query_embeddings searches it:
--
--   insert into embeddings (content) values ('Reset your password on the account page.');
--   select content from query_embeddings('I forgot my login', 0.8, 3);
--
-- Needs the extension: create extension "gte-small" cascade. The script is one statement, so from any
-- client it creates all objects or none. They go into the current schema. Running it again changes
-- nothing.
--
-- A database that has followed the tutorial has a function query_embeddings already, and a webhook that calls the edge
-- function generate-embedding. They are replaced if this setting says so, in the same session:
--
--   psql -c 'set embeddings.replace = on' -f embeddings.sql
--
-- A notice shows what was replaced. The table, its rows, policies and privileges stay.

do $do$
declare
  -- The schemas of the table, of this extension and of pgvector.
  here pg_catalog.text := pg_catalog.quote_ident(pg_catalog.current_schema()::pg_catalog.text);
  gte pg_catalog.text;
  vec pg_catalog.text;
  searched pg_catalog.text := pg_catalog.current_setting('search_path');
  replace pg_catalog.bool := coalesce(nullif(pg_catalog.current_setting('embeddings.replace', true), ''), 'off');
  target pg_catalog.regclass;
  one pg_catalog.record;
  filled pg_catalog.bool := false;
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
  target := to_regclass(here || '.embeddings');
  if target is null then
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
  if replace and pg_has_role((select relowner from pg_class where oid = target), 'USAGE') then
    -- The strongest lock that is needed, at once.
    execute format('lock table %s in access exclusive mode', target);
  end if;

  -- Functions with the arguments of those to be made. One that returns rows of the table gets the mark of this
  -- extension, so that it is replaced as an older one of its own is, and passes on its privileges.
  -- Version 0.1.0 of the extension refuses them itself.
  if to_regnamespace('gte_small') is not null then
    for one in
      select p.oid::regprocedure as func, p.prorettype = c.reltype as of_rows, pg_has_role(p.proowner, 'USAGE') as may
        from pg_class c cross join gte_small.search_functions(c.oid, '{content}', 'embedding', 'simple', 'query_embeddings') f
        join pg_proc p on p.oid = to_regprocedure(format('%s.%I(%s)', here, f.name, f.types))
       where c.oid = target and c.relkind in ('r', 'p') and p.oid not in (select gte_small.made_functions(c.oid, 'embedding'))
    loop
      if not one.of_rows or not replace then
        raise exception 'function % exists and is not gte-small''s for this table', one.func
          using errcode = 'duplicate_function', detail = 'It was left as it is; nothing was made.',
                hint = case when one.of_rows then 'To have it replaced, run SET embeddings.replace = on; and this script again in the same session. Its privileges stay.'
                       else format('It returns something else. Run DROP FUNCTION %s; and this script again.', one.func) end;
      elsif not one.may then
        raise exception 'must be owner of function %', one.func
          using errcode = 'insufficient_privilege', detail = 'It was left as it is; nothing was made.',
                hint = format('Run this script as its owner, or ALTER FUNCTION %s OWNER TO %I; first.', one.func, current_user);
      end if;
      raise notice 'function % is replaced', one.func using detail = 'It was: ' || pg_get_functiondef(one.func);
      execute format('comment on function %s is %L', one.func, gte_small.mark('embedding') || ': to be replaced');
    end loop;
  end if;

  -- Webhooks: the first argument is the address, others may have keys and are not shown.
  for one in
    select t.tgname, u.address, u.address like '%/functions/v1/%embed%' as embeds
      from pg_trigger t join pg_proc p on p.oid = t.tgfoid join pg_namespace n on n.oid = p.pronamespace
      cross join lateral (values (convert_from(substring(t.tgargs from 1 for position(decode('00', 'hex') in t.tgargs) - 1), getdatabaseencoding()))) as u (address)
     where t.tgrelid = target and not t.tgisinternal and t.tgnargs > 0 and n.nspname = 'supabase_functions' and p.proname = 'http_request'
  loop
    if one.embeds and replace then
      execute format('drop trigger %I on %s', one.tgname, target);
      raise notice 'trigger "%" is dropped: it called %', one.tgname, one.address
        using hint = 'Delete this edge function where nothing else calls it.';
    else
      raise warning 'trigger "%" of table % calls %', one.tgname, target, one.address
        using detail = 'If that stores an embedding, each row is embedded twice, and its vector counts as one of unknown origin.',
              hint = format('If it does: DROP TRIGGER %I ON %s;', one.tgname, target);
    end if;
  end loop;

  execute format('select %s.enable_semantic_search(%L)', gte, here || '.embeddings');
  if replace and to_regnamespace('gte_small') is not null then
    execute format('select exists (select 1 from only %s e where e.embedding is not null)', here || '.embeddings') into filled;
  end if;
  if filled then
    if exists (select from gte_small.embedding_columns(target) c where c.embedding = 'embedding' and c.note ->> 'fingerprint' is null) then
      raise notice 'nothing is known of the model of the embeddings that are there'
        using hint = format('SELECT * FROM %1$s.embed_verify(%2$L, NULL); compares each with its text. If it counts wrong ones: CALL %1$s.embed_backfill(%2$L, force => true);',
                            gte, target);
    end if;
  end if;
  perform set_config('search_path', searched, true);
end
$do$;
