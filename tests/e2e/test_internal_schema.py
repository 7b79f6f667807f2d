"""The schema gte_small has what only the extension calls; the extension's own schema has what users call."""

import psycopg
import pytest

from measure import one

# Each user's object of a search, in a schema that is not the extension's.
ENABLE = "create table app.docs (id int primary key, content text); select extensions.enable_semantic_search('app.docs')"


@pytest.fixture
def apart(server):
    """A database with both extensions in a schema of their own, and no extension in the search_path."""
    database = server.create_database("template0")
    connection = database.connect()
    connection.execute("create schema extensions; create schema app; create extension vector schema extensions;"
                       'create extension "gte-small" schema extensions')
    yield database, connection
    database.drop()


def test_internal_functions_have_a_fixed_search_path(connection):
    unset = connection.execute(
        "select p.oid::regprocedure::text from pg_proc p join pg_language l on l.oid = p.prolang "
        "where p.pronamespace = 'gte_small'::regnamespace and l.lanname in ('sql', 'plpgsql') "
        # A body behind RETURN is a parse tree, which looks up no name.
        "and p.prosqlbody is null "
        "and not coalesce(p.proconfig::text like '%search_path=pg_catalog, pg_temp%', false)").fetchall()
    # They read and write users' rows, whose policies and triggers may need the session's search_path.
    assert sorted(name.split("(")[0] for (name,) in unset) == [
        "gte_small.backfill_batch", "gte_small.backfill_names", "gte_small.backfill_shards", "gte_small.backfill_steps", "gte_small.backfill_write",
        "gte_small.documents_of_shards", "gte_small.hybrid_places", "gte_small.hybrid_rows", "gte_small.nearest_documents", "gte_small.nearest_places",
        "gte_small.nearest_rows", "gte_small.sees_document"]


def test_search_functions_have_none(connection):
    connection.execute("create table docs (content text); select enable_semantic_search('docs')")
    assert one(connection, "select count(*) from pg_proc where proname ~ '_docs$' and proconfig::text like '%search_path%'") == 0


def test_a_schema_of_that_name_is_refused(server):
    database = server.create_database("template0")
    try:
        connection = database.connect()
        connection.execute("create extension vector; create schema gte_small")
        for where in ("public", "gte_small"):
            with pytest.raises(psycopg.errors.DuplicateSchema, match='schema "gte_small" exists') as error:
                connection.execute(f'create extension "gte-small" schema {where}')
            assert "Rename or drop" in error.value.diag.message_hint
    finally:
        database.drop()


def test_the_extensions_schema_can_be_renamed(apart):
    database, connection = apart
    connection.execute(ENABLE)
    connection.execute("insert into app.docs (id, content) values (1, 'a cat')")
    connection.execute("alter schema extensions rename to ext")
    later = database.connect()
    for session in (connection, later):
        session.execute("insert into app.docs (id, content) select max(id) + 1, 'a dog' from app.docs")
        assert one(session, "select count(*) from app.query_docs('a cat', 0.9)") == 1
        assert one(session, "select count(*) from app.hybrid_docs('a cat') where (item).content = 'a cat'") == 1
        assert one(session, "select state from ext.embedding_status('app.docs')") == "current"
        assert one(session, "select wrong from ext.embed_verify('app.docs')") == 0
        session.execute("set gte_small.own_vectors = on; update app.docs set embedding = null")
        session.execute("call ext.embed_backfill('app.docs')")
        assert one(session, "select count(*) from app.docs where embedding is null") == 0
        session.execute("call ext.embed_backfill('app.docs', force => true)")
    later.execute("select ext.enable_semantic_search('app.docs')")
    later.execute("select ext.disable_semantic_search('app.docs')")
    assert one(later, "select count(*) from pg_proc where pronamespace = 'app'::regnamespace") == 0


def test_documents_survive_the_rename(apart, server):
    database, connection = apart
    connection.execute("set search_path = app")
    connection.execute(server.chunks_sql.read_text())
    connection.execute("alter schema extensions rename to ext")
    later = database.connect()
    later.execute("insert into app.documents (content) values ('a cat sat on the mat')")
    assert one(later, "select count(*) from app.query_documents('a cat')") == 1
