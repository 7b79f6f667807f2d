"""With EXECUTE revoked from PUBLIC, the grants of docs/security.md are enough for each role to do its work."""

import json
import re

import psycopg
import pytest

from conftest import CLONE
from measure import one

ROLES = {"searcher": "gte_reader", "writer": "gte_plain", "owner": "gte_owner",
         "anon": "gte_anon", "authenticated": "gte_authenticated", "service_role": "gte_service"}


def statements():
    """The SQL block under each heading of the page, with the test's roles. A section has one block at most."""
    page = (CLONE / "docs" / "security.md").read_text(encoding="utf-8")
    blocks = {}
    for heading, text in re.findall(r"^#+ (.*?)$(.*?)(?=^#+ |\Z)", page, re.DOTALL | re.MULTILINE):
        found = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
        assert len(found) <= 1 and heading not in blocks, heading
        for block in found:
            roles = rf"\bto ((?:{'|'.join(ROLES)})(?:, (?:{'|'.join(ROLES)}))*)\b"
            blocks[heading] = re.sub(roles, lambda to: "to " + re.sub(r"\w+", lambda role: ROLES[role[0]], to[1]), block)
    return blocks


REVOKE, SEARCHER, WRITER = "Revoke", "A role that searches", "A role that writes rows"
OWNER = "The owner of the table"
API_GRANTS, API_POLICIES = "Grants for an API server", "Policies for an API server"


@pytest.fixture
def revoked(server):
    """A database in which PUBLIC may execute nothing of the extensions; the table belongs to gte_owner."""
    database = server.create_database("template0")
    admin = database.connect()
    admin.execute("create schema extensions; create schema app; create extension vector schema extensions;"
                  'create extension "gte-small" schema extensions')
    blocks = statements()
    admin.execute(blocks[REVOKE])
    admin.execute(blocks[OWNER])
    owner = database.connect("gte_owner")
    owner.execute("create table app.docs (id int generated always as identity primary key, content text)")
    owner.execute("insert into app.docs (content) values ('a dog')")
    owner.execute("select extensions.enable_semantic_search('app.docs')")
    admin.execute(blocks[REVOKE])
    admin.execute(blocks[OWNER])
    yield database, admin, owner, blocks
    database.drop()


def test_every_block_of_the_page_is_run_by_a_test():
    assert set(statements()) == {REVOKE, SEARCHER, WRITER, OWNER, API_GRANTS, API_POLICIES}


def test_without_grants_nothing_can_be_called(revoked):
    database, admin, owner, blocks = revoked
    admin.execute("grant usage on schema extensions, app to gte_reader; grant select on app.docs to gte_reader")
    reader = database.connect("gte_reader")
    for call in ("extensions.embed('x')", "app.query_docs('x', 0.9)", "extensions.embedding_status('app.docs')",
                 "gte_small.vector_schema()"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(f"select {call}")


def test_the_owner_enables_fills_and_checks(revoked):
    _, _, owner, _ = revoked
    owner.execute("call extensions.embed_backfill('app.docs')")
    owner.execute("call extensions.embed_backfill('app.docs', force => true)")
    owner.execute("insert into app.docs (content) values ('a cat')")
    assert one(owner, "select count(*) from app.query_docs('a cat', 0.9)") == 1
    assert one(owner, "select state from extensions.embedding_status('app.docs')") == "current"
    assert one(owner, "select wrong from extensions.embed_verify('app.docs')") == 0
    owner.execute("select extensions.suggest_threshold('app.docs')")
    assert owner.execute("select * from extensions.refresh_semantic_search()").fetchall() == []
    owner.execute("select extensions.disable_semantic_search('app.docs')")


def test_the_searcher_searches(revoked):
    database, admin, owner, blocks = revoked
    owner.execute("call extensions.embed_backfill('app.docs')")
    admin.execute(blocks[SEARCHER])
    reader = database.connect("gte_reader")
    for call in ("app.query_docs('a dog', 0.9)", "app.query_docs('a dog', 0.9, 3)",
                 "app.query_docs(extensions.embed('a dog'), 0.9)", "app.query_docs(extensions.embed('a dog'), 0.9, 3)",
                 "app.hybrid_docs('dog')"):
        assert one(reader, f"select count(*) from {call}") == 1, call
    for call in ("extensions.embedding_status('app.docs')", "extensions.enable_semantic_search('app.docs')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(f"select {call}")


def test_the_writer_writes(revoked):
    database, admin, owner, blocks = revoked
    admin.execute(blocks[WRITER])
    writer = database.connect("gte_plain")
    writer.execute("insert into app.docs (content) values ('a cat')")
    writer.execute("update app.docs set content = 'a bird' where content = 'a cat'")
    writer.execute("insert into app.docs (content, embedding) select 'a copy', embedding from app.docs where content = 'a bird'")
    assert one(writer, "select count(*) from app.docs where embedding is not null") == 2
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        writer.execute("select app.query_docs('x', 0.9)")


# --- the roles of an API server ---


@pytest.fixture
def api(revoked):
    """Calls as an API server makes them: one transaction, with the role and the claims of the token."""
    database, admin, owner, blocks = revoked
    roles = ("gte_anon", "gte_authenticated", "gte_service")
    for role in (*roles, "gte_authenticator"):
        admin.execute(f"drop role if exists {role}")
    admin.execute("create role gte_anon; create role gte_authenticated; create role gte_service bypassrls;"
                  "create role gte_authenticator login noinherit; grant gte_anon, gte_authenticated, gte_service to gte_authenticator")
    owner.execute("alter table app.docs add column author text, add column published boolean not null default false")
    owner.execute("call extensions.embed_backfill('app.docs')")
    admin.execute(blocks[API_GRANTS])
    admin.execute(blocks[API_POLICIES])
    connection = database.connect("gte_authenticator")

    def call(role, statement, user=None):
        with connection.transaction():
            connection.execute(f"set local role {role}")
            claims = json.dumps({"sub": user}) if user else ""
            connection.execute("select set_config('request.jwt.claims', %s, true)", [claims])
            cursor = connection.execute(statement)
            return [row[0] for row in cursor.fetchall()] if cursor.description else cursor.rowcount

    yield call, owner
    connection.close()
    admin.execute(f"drop owned by {', '.join(roles)}, gte_authenticator")
    for role in (*roles, "gte_authenticator"):
        admin.execute(f"drop role {role}")


def refused(call, *arguments):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        call(*arguments)


SEARCHES = ("app.query_docs('a dog', 0.9)", "app.query_docs('a dog', 0.9, 3)", "app.hybrid_docs('dog')")


def test_each_role_of_an_api_finds_its_rows(api):
    call, owner = api
    owner.execute("insert into app.docs (content, author, published) values "
                  "('a dog', 'ann', false), ('a dog', 'bob', false), ('a dog', 'ann', true)")
    for search in SEARCHES:
        count = f"select count(*) from {search}"
        assert call("gte_anon", count) == [1], search
        assert call("gte_authenticated", count, "ann") == [2], search
        assert call("gte_authenticated", count, "carl") == [1], search
        assert call("gte_authenticated", count) == [1], search
        assert call("gte_service", count) == [3 if "3)" in search else 4], search


def test_each_role_of_an_api_writes_its_rows(api):
    call, owner = api
    write = "insert into app.docs (content, author) values ('a bird', 'ann')"
    refused(call, "gte_anon", write)
    refused(call, "gte_authenticated", write, "bob")
    assert call("gte_authenticated", write, "ann") == 1
    assert call("gte_service", write.replace("ann", "bob")) == 1
    assert call("gte_authenticated", "update app.docs set content = 'a fish' where content = 'a bird'", "ann") == 1
    assert call("gte_authenticated", "delete from app.docs where author = 'bob'", "ann") == 0
    assert one(owner, "select count(*) from app.docs where embedding is null") == 0
    assert call("gte_authenticated", "select content from app.query_docs('a fish', 0.9)", "ann") == ["a fish"]
    assert call("gte_authenticated", "select content from app.query_docs('a bird', 0.9)", "ann") == []


def test_what_the_roles_of_an_api_may_not(api):
    call, _ = api
    for role in ("gte_anon", "gte_authenticated"):
        for statement in ("select extensions.embed(array['a', 'b'])", "select extensions.chunk_text('a')",
                          "select extensions.token_count('a')", "select extensions.embed_verify('app.docs')"):
            refused(call, role, statement)
    call("gte_anon", "select count(*) from app.query_docs('load the library', 0.9)")
    for role in ("gte_anon", "gte_authenticated", "gte_service"):
        refused(call, role, "set local gte_small.max_threads = 64")
        refused(call, role, "select gte_small.backfill_force_acquire('app.docs')")
        refused(call, role, "alter table app.docs disable row level security")


def test_the_service_fills_and_only_the_owner_forces(api):
    call, owner = api
    owner.execute("set gte_small.defer = on; insert into app.docs (content) values ('a cat'); reset gte_small.defer")
    assert call("gte_service", "select extensions.embed_backfill_step('app.docs')") == [1]
    assert call("gte_service", "select content from app.query_docs('a cat', 0.9)") == ["a cat"]


def test_a_role_of_an_api_gets_no_hit_for_the_text_of_another(api):
    call, owner = api

    def hits(role):
        before = call("gte_service", "select memo_hits from extensions.embed_stats()")[0]
        call(role, "select count(*) from app.query_docs('a secret', 0.9)")
        return call("gte_service", "select memo_hits from extensions.embed_stats()")[0] - before

    assert [hits(role) for role in ("gte_authenticated", "gte_anon", "gte_authenticated", "gte_anon")] == [0, 0, 1, 1]
