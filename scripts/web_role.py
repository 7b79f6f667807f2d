"""The role that the page reads with. It may read the demo's tables and write nothing.

It has what docs/security.md grants to a role that searches, and the functions that say how a table and the model are. A
privilege that it has through PUBLIC is not granted again.
"""

from postgres import quote_literal

ROLE = "gte_web"
# More than the page uses, so that a second page can start while the first ends.
CONNECTIONS = 10

# The tables of `make run` and `make import`. Other tables are the user's: the page shows the statement that lets it read one.
GRANTS = r"""
do $do$
declare
  one record;
  granted record;
  policy constant text := 'gte_web_reads';
begin
  if not exists (select from pg_roles where rolname = {role}) then
    create role gte_web;
  end if;
  alter role gte_web login nosuperuser nocreatedb nocreaterole noreplication nobypassrls connection limit {connections};
  alter role gte_web set default_transaction_read_only = on;
  alter role gte_web set statement_timeout = '1min';

  -- The schemas of the extensions and of the internal functions.
  for one in
    select n.nspname as name from pg_namespace n
     where (n.nspname = 'gte_small' or n.oid in (select e.extnamespace from pg_extension e where e.extname in ('gte-small', 'vector')))
       and not has_schema_privilege({role}, n.oid, 'usage')
  loop
    execute format('grant usage on schema %I to gte_web', one.name);
  end loop;
  for one in
    select p.oid::regprocedure as name from pg_proc p
      join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
      join pg_extension e on e.oid = d.refobjid and d.refclassid = 'pg_extension'::regclass
     where (e.extname = 'gte-small' and (p.pronamespace = 'gte_small'::regnamespace
              or p.proname in ('embed_query', 'embed_model', 'embed_selftest', 'embedding_status'))
            or e.extname = 'vector' and p.proname in ('vector_negative_inner_product', 'binary_quantize'))
       and p.prokind = 'f' and not has_function_privilege({role}, p.oid, 'execute')
  loop
    execute format('grant execute on function %s to gte_web', one.name);
  end loop;

  for one in
    select c.oid, c.oid::regclass as name, n.nspname, c.relrowsecurity and c.oid::regclass = to_regclass('public.embeddings') as is_hidden
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p') and c.relowner = current_user::regrole
       and (c.oid = to_regclass('public.embeddings') or obj_description(c.oid, 'pg_class') like 'imported from %')
       and exists (select from gte_small.embedding_columns(c.oid))
  loop
    if not has_schema_privilege({role}, one.nspname, 'usage') then
      execute format('grant usage on schema %I to gte_web', one.nspname);
    end if;
    if not has_table_privilege({role}, one.oid, 'select') then
      execute format('grant select on %s to gte_web', one.name);
    end if;
    -- The demo's table shows its rows to nobody but its owner without a policy.
    if one.is_hidden and not exists (select from pg_policy p where p.polrelid = one.oid and p.polname = policy) then
      execute format('create policy %I on %s for select to gte_web using (true)', policy, one.name);
    end if;
    for granted in
      select m as name from gte_small.embedding_columns(one.oid) k, gte_small.made_functions(one.oid, k.embedding) m
       where not has_function_privilege({role}, m, 'execute')
    loop
      execute format('grant execute on function %s to gte_web', granted.name);
    end loop;
  end loop;
end
$do$;
"""


def make(cluster, database: str) -> None:
    """Creates the role, or gives it what it lacks. A second call changes nothing."""
    statement = GRANTS.replace("{role}", quote_literal(ROLE)).replace("{connections}", str(CONNECTIONS))
    cluster.psql(statement, dbname=database)


def let_read_new_tables(cluster, database: str) -> None:
    """For a page that runs while a table is imported: gives the role, if there is one, the right to read it."""
    if cluster.psql(f"select 1 from pg_roles where rolname = {quote_literal(ROLE)}", args=("-At",)).stdout.strip():
        make(cluster, database)
