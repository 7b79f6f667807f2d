"""From the semantic-search tutorial to the extension: `sql/embeddings.sql` in a database that followed it."""

import json
import random
from types import SimpleNamespace

import psycopg
import pytest

from measure import one

CONTENTS = ["A cat sleeps on the sofa.", "Invoices are due within thirty days.", "A backup runs every night at two.", "The bus leaves at nine."]

# Roles and schemas as the platform has them. The owner of the tables is no superuser.
PLATFORM = """
create schema extensions;
create extension vector schema extensions;
create extension "gte-small" schema extensions;
create schema supabase_functions;
create function supabase_functions.http_request() returns trigger language plpgsql as $$
begin insert into supabase_functions.hooks values (tg_argv[0]); return new; end $$;
create table supabase_functions.hooks (address text);
grant usage on schema public, extensions, supabase_functions to anon, authenticated, service_role, gte_project;
grant insert on supabase_functions.hooks to anon, authenticated, service_role, gte_project;
grant create on schema public to gte_project;
alter default privileges for role gte_project in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges for role gte_project in schema public grant all on functions to anon, authenticated, service_role;
"""

# What the tutorial makes: the names and forms are those it prints.
TUTORIAL = """
create table embeddings (id bigint primary key generated always as identity, content text not null, embedding vector(384));
alter table embeddings enable row level security;
create index on embeddings using hnsw (embedding vector_ip_ops);
create function query_embeddings(embedding vector(384), match_threshold float) returns setof embeddings language plpgsql as $$
#variable_conflict use_variable
begin
  return query select * from embeddings where embeddings.embedding <#> embedding < -match_threshold order by embeddings.embedding <#> embedding;
end $$;
create trigger "on_inserted_or_updated_embedding" after insert or update of content on public.embeddings for each row
  execute function supabase_functions.http_request('https://project.supabase.co/functions/v1/generate-embedding', 'POST', '{"apikey":"secret"}', '{}', '5000');
create policy "everybody reads" on embeddings for select to anon, authenticated using (true);
"""


@pytest.fixture
def project(server):
    """A database that has followed the tutorial, and a session of the owner of its table."""
    for role, option in [("anon", ""), ("authenticated", ""), ("service_role", "bypassrls"), ("gte_project", "login")]:
        server.execute(f"do $$ begin if to_regrole('{role}') is null then create role {role} {option}; end if; end $$")
    server.execute("grant anon, authenticated, service_role to gte_project")
    database = server.create_database("template0")
    database.configure("gte_small.model_path", server.minilm)
    database.connect().execute(PLATFORM)
    server.execute(f"alter database {database.name} set search_path = \"$user\", public, extensions")
    owner = database.connect("gte_project")
    owner.execute(TUTORIAL)
    yield database, owner
    database.drop()
    for role in ("anon", "authenticated", "service_role", "gte_project"):
        server.execute(f"drop role {role}")


def fill(owner, noise=0.0):
    """Rows with the vectors of the old chain, of unit length."""
    source = random.Random(1)
    for content in CONTENTS:
        vector = json.loads(one(owner, "select embed(%s)::text", [content]))
        vector = [value + source.uniform(-noise, noise) for value in vector]
        length = sum(value * value for value in vector) ** 0.5
        owner.execute("insert into embeddings (content, embedding) values (%s, %s)", [content, json.dumps([value / length for value in vector])])


def replace(database, owner):
    """Runs the script with the setting, and returns what it said."""
    heard = []
    owner.add_notice_handler(lambda notice: heard.append(
        SimpleNamespace(primary=notice.message_primary, detail=notice.message_detail or "", hint=notice.message_hint or "")))
    owner.execute("set embeddings.replace = on")
    database.apply_embeddings_sql(owner)
    return heard


def functions(connection):
    return connection.execute("select oid::regprocedure::text, prosrc from pg_proc where pronamespace = 'public'::regnamespace order by 1").fetchall()


def rpc(connection, role, function, arguments, types):
    """A call as PostgREST makes it: by the names of the arguments, from one JSON object, as another role."""
    record = ", ".join(f'"{name}" {type}' for name, type in types.items())
    named = ", ".join(f'"{name}" := a."{name}"' for name in types)
    with connection.transaction():
        connection.execute(f"set local role {role}")
        return [row[0] for row in connection.execute(
            f"with pgrst_args as (select * from json_to_record(%s::json) as _({record})) "
            f"select r.content from pgrst_args a, lateral public.{function}({named}) r limit 3", [json.dumps(arguments)])]


def test_nothing_is_replaced_unasked(project):
    database, owner = project
    before = functions(owner)
    with pytest.raises(psycopg.errors.DuplicateFunction) as error:
        database.apply_embeddings_sql(owner)
    assert "SET embeddings.replace = on" in error.value.diag.message_hint
    assert functions(owner) == before
    owner.execute("insert into embeddings (content) values ('a cat')")
    assert one(database.connect(), "select address from supabase_functions.hooks").endswith("generate-embedding")


def test_the_tutorial_is_replaced_on_request(project):
    database, owner = project
    fill(owner)
    owner.execute("revoke execute on function query_embeddings from public, anon")
    heard = replace(database, owner)
    said = [notice.primary for notice in heard]
    assert any("function query_embeddings(vector,double precision) is replaced" in text.replace("extensions.", "").replace("public.", "") for text in said), said
    assert any('trigger "on_inserted_or_updated_embedding" is dropped' in text for text in said), said
    everything = " ".join(f"{n.primary} {n.detail} {n.hint}" for n in heard)
    assert "match_threshold order by" in everything and "secret" not in everything
    # The rows and the policy are as they were; the trigger embeds, and nothing is called any more.
    assert one(owner, "select count(*) from embeddings where embedding is not null") == 4
    assert one(owner, "select string_agg(polname, ',') from pg_policy where polrelid = 'embeddings'::regclass") == "everybody reads"
    calls = one(database.connect(), "select count(*) from supabase_functions.hooks")
    owner.execute("insert into embeddings (content) values ('A cat lies on the couch.')")
    assert one(owner, "select embedding is not null from embeddings where content like '%%couch.'")
    assert one(database.connect(), "select count(*) from supabase_functions.hooks") == calls
    # Who could not call the search before can't now.
    for call in ("query_embeddings('a cat')", "search_embeddings('a cat')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), owner.transaction():
            owner.execute("set local role anon")
            owner.execute(f"select * from {call}")
    assert rpc(owner, "authenticated", "query_embeddings", {"search": "pets"}, {"search": "text"})[0].startswith("A cat")
    # A second run finds nothing to replace.
    heard.clear()
    database.apply_embeddings_sql(owner)
    assert [notice.primary for notice in heard if "nothing is known" not in notice.primary] == []


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
def test_calls_by_the_names_of_the_tutorial_work(project, role):
    database, owner = project
    fill(owner)
    replace(database, owner)
    old = {"embedding": one(owner, "select embed('When do I have to pay?')::text"), "match_threshold": 0.1}
    assert rpc(owner, role, "query_embeddings", old, {"embedding": "extensions.vector", "match_threshold": "float8"})[0] == CONTENTS[1]
    new = {"search": "When do I have to pay?", "match_threshold": 0.1, "match_count": 2}
    assert rpc(owner, role, "query_embeddings", new, {"search": "text", "match_threshold": "float8", "match_count": "int4"})[0] == CONTENTS[1]
    assert rpc(owner, role, "search_embeddings", {"search": "pets", "match_count": 1}, {"search": "text", "match_count": "int4"}) == CONTENTS[:1]
    # The policy allows these two to read only, and row-level security holds in the search.
    if role != "service_role":
        with pytest.raises(psycopg.errors.InsufficientPrivilege), owner.transaction():
            owner.execute(f"set local role {role}")
            owner.execute("insert into embeddings (content) values ('x')")
    owner.execute('drop policy "everybody reads" on embeddings')
    assert (rpc(owner, role, "search_embeddings", {"search": "pets"}, {"search": "text"}) == []) == (role != "service_role")


def test_vectors_of_the_same_model_are_right_as_they_are(project):
    database, owner = project
    fill(owner)
    heard = replace(database, owner)
    assert any("embed_verify" in notice.hint for notice in heard)
    before = owner.execute("select ctid::text, xmin::text, embedding::text from embeddings order by id").fetchall()
    assert one(owner, "select state from embedding_status('embeddings')") == "unknown"
    assert owner.execute("select checked, wrong, missing from embed_verify('embeddings', null)").fetchall() == [(4, 0, 0)]
    assert one(owner, "select state from embedding_status('embeddings')") == "current"
    assert owner.execute("select ctid::text, xmin::text, embedding::text from embeddings order by id").fetchall() == before


def test_quantised_vectors_are_found_and_embedded_again(project):
    database, owner = project
    fill(owner, noise=0.018)
    cosines = [c for c, in owner.execute("select 1 - (embedding <=> embed(content)) from embeddings")]
    assert all(0.95 < cosine < 0.995 for cosine in cosines), cosines
    replace(database, owner)
    owner.execute("insert into embeddings (content) values ('new')")
    assert owner.execute("select checked, wrong from embed_verify('embeddings', null)").fetchall() == [(5, 4)]
    owner.execute("call embed_backfill('embeddings', force => true)")
    assert owner.execute("select checked, wrong from embed_verify('embeddings', null)").fetchall() == [(5, 0)]
    assert one(owner, "select state from embedding_status('embeddings')") == "current"


def test_a_function_of_another_form_is_left(project):
    database, owner = project
    owner.execute("drop function query_embeddings; create function query_embeddings(query_embedding vector(384), match_threshold float) "
                  "returns table (id bigint, similarity float) language sql as 'select 1, 1.0'")
    with pytest.raises(psycopg.errors.DuplicateFunction) as error:
        replace(database, owner)
    statement = error.value.diag.message_hint.split("Run ")[1].split(" and this")[0]
    owner.execute(statement)
    database.apply_embeddings_sql(owner)
    assert one(owner, "select count(*) from pg_trigger where tgname = 'on_inserted_or_updated_embedding'") == 0


def test_another_webhook_stays_and_is_named(project):
    database, owner = project
    owner.execute("create trigger tell after insert on embeddings for each row execute function supabase_functions.http_request('https://example.com/news', 'POST', '{}', '{}', '1')")
    heard = replace(database, owner)
    assert any('trigger "tell"' in notice.primary and "https://example.com/news" in notice.primary for notice in heard)
    assert one(owner, "select count(*) from pg_trigger where tgname = 'tell'") == 1


def test_what_the_guide_says_about_rights_and_moved_rows(project):
    """The statements of docs/supabase.md, as they stand there."""
    database, owner = project
    fill(owner)
    owner.execute("create table old_embeddings as select content, embedding from embeddings")
    owner.execute("delete from embeddings")
    replace(database, owner)
    owner.execute("insert into embeddings (content, embedding) select content, embedding from old_embeddings")
    assert one(owner, "select state from embedding_status('embeddings')") == "unknown"
    assert owner.execute("select checked, wrong from embed_verify('embeddings', null)").fetchall() == [(4, 0)]
    assert one(owner, "select state from embedding_status('embeddings')") == "current"
    assert rpc(owner, "anon", "search_embeddings", {"search": "pets"}, {"search": "text"})
    owner.execute("revoke execute on function search_embeddings, hybrid_embeddings, query_embeddings(text, float8), query_embeddings(text, float8, int, jsonb) "
                  "from public, anon, authenticated")
    for call in ("search_embeddings('pets')", "hybrid_embeddings('pets')", "query_embeddings('pets', 0.8)", "query_embeddings('pets', 0.8, 3)"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), owner.transaction():
            owner.execute("set local role anon")
            owner.execute(f"select * from {call}")
