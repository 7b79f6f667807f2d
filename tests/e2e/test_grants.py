"""With EXECUTE revoked from PUBLIC, the grants of docs/security.md are enough for each role to do its work."""

import re

import psycopg
import pytest

from conftest import CLONE
from measure import one

ROLES = {"searcher": "gte_reader", "writer": "gte_plain", "owner": "gte_owner"}


def statements():
    """The SQL blocks of the page, with the test's roles."""
    page = (CLONE / "docs" / "security.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 4
    for name, role in ROLES.items():
        blocks = [re.sub(rf"\bto {name};", f"to {role};", block) for block in blocks]
    return dict(zip(("revoke", "searcher", "writer", "owner"), blocks))


@pytest.fixture
def revoked(server):
    """A database in which PUBLIC may execute nothing of the extensions; the table belongs to gte_owner."""
    database = server.create_database("template0")
    admin = database.connect()
    admin.execute("create schema extensions; create schema app; create extension vector schema extensions;"
                  'create extension "gte-small" schema extensions')
    blocks = statements()
    admin.execute(blocks["revoke"])
    admin.execute(blocks["owner"])
    owner = database.connect("gte_owner")
    owner.execute("create table app.docs (id int generated always as identity primary key, content text)")
    owner.execute("insert into app.docs (content) values ('a dog')")
    owner.execute("select extensions.enable_semantic_search('app.docs')")
    admin.execute(blocks["revoke"])
    admin.execute(blocks["owner"])
    yield database, admin, owner, blocks
    database.drop()


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
    admin.execute(blocks["searcher"])
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
    admin.execute(blocks["writer"])
    writer = database.connect("gte_plain")
    writer.execute("insert into app.docs (content) values ('a cat')")
    writer.execute("update app.docs set content = 'a bird' where content = 'a cat'")
    writer.execute("insert into app.docs (content, embedding) select 'a copy', embedding from app.docs where content = 'a bird'")
    assert one(writer, "select count(*) from app.docs where embedding is not null") == 2
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        writer.execute("select app.query_docs('x', 0.9)")
