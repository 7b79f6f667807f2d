"""`embedding_written`: a backfill records its model, because the trigger does nothing at an UPDATE with a vector."""

import psycopg
import pytest

from measure import one
from test_note import EMBEDS, TABLE, comment, describe, fingerprint, note, use, warnings


@pytest.fixture
def docs(connection):
    connection.execute(TABLE.format("docs"))
    describe(connection, {})
    return connection


def written(connection, arguments="'docs'"):
    connection.execute(f"select embedding_written({arguments})")


@pytest.mark.parametrize("arguments", ["'docs'", "'docs', 'embedding'", "target => 'public.docs'", "'docs'::regclass, embedding => 'embedding'"])
def test_it_notes_the_model(docs, arguments):
    written(docs, arguments)
    assert note(docs) == {"fingerprint": fingerprint(docs)}
    before = comment(docs)
    written(docs, arguments)
    assert comment(docs) == before


def test_several_times_in_a_statement(docs):
    docs.execute("select embedding_written('docs') from generate_series(1, 3)")
    assert note(docs) == {"fingerprint": fingerprint(docs)}


def test_another_model_is_marked(server, database, docs):
    written(docs)
    database.configure("gte_small.model_path", server.tiny_other)
    session = database.connect()
    said = warnings(session)
    written(session)
    written(session)
    assert note(docs) == {"fingerprint": fingerprint(docs), "mixed": True} and len(said) == 1


def test_a_forced_backfill(server, docs):
    describe(docs, {"fingerprint": "x", "force": {"fingerprint": fingerprint(docs), "block": 3}})
    before, said = comment(docs), warnings(docs)
    written(docs)
    assert comment(docs) == before and said == []
    use(docs, server.tiny_other)
    written(docs)
    assert note(docs)["force"]["mixed"] is True and "mixed" not in note(docs) and len(said) == 1


def test_each_column_has_its_note(docs):
    docs.execute(
        "alter table docs add title text, add title_embedding vector(384); "
        "create trigger zzz_gte_small_title_embedding before insert or update on docs for each row "
        "execute function embed_trigger('title_embedding', 'title'); "
        "comment on trigger zzz_gte_small_title_embedding on docs is 'gte-small {}'"
    )
    written(docs, "'docs', 'title_embedding'")
    notes = dict(docs.execute("select embedding, note from embedding_columns('docs')").fetchall())
    assert notes == {"embedding": {}, "title_embedding": {"fingerprint": fingerprint(docs)}}


def test_a_trigger_that_is_switched_off(docs):
    docs.execute("alter table docs disable trigger user")
    written(docs)
    assert note(docs) == {"fingerprint": fingerprint(docs)}


def test_partitions(connection):
    connection.execute(
        "create table docs (id int, content text, embedding vector(384)) partition by range (id); "
        "create table low partition of docs for values from (0) to (10); " + EMBEDS.format("docs")
    )
    for table in ("docs", "low"):
        describe(connection, {})
        written(connection, f"'{table}'")
        assert note(connection) == {"fingerprint": fingerprint(connection)}


@pytest.mark.parametrize("arguments", ["'docs', 'content'", "'docs', 'no such column'", "'docs', 'Embedding'", "'bare'", "'a_view'", "'an_index'",
                                       "'foreign_trigger'", "null", "'docs', null"])
def test_where_no_trigger_of_ours_is(docs, arguments):
    """It needs no model either."""
    docs.execute(
        "create table bare (content text, embedding vector(384)); create view a_view as select * from docs; create index an_index on docs (content); "
        "create table foreign_trigger (content text, embedding vector(384)); create function own() returns trigger language plpgsql "
        "as 'begin return new; end'; create trigger zzz_gte_small_embedding before insert on foreign_trigger for each row "
        "execute function own('embedding', 'content'); comment on trigger zzz_gte_small_embedding on foreign_trigger is 'gte-small {}'"
    )
    use(docs, "/nonexistent/model")
    before = docs.execute("select objoid, description, xmin::text from pg_description where classoid = 'pg_trigger'::regclass").fetchall()
    written(docs, arguments)
    assert docs.execute("select objoid, description, xmin::text from pg_description where classoid = 'pg_trigger'::regclass").fetchall() == before


@pytest.mark.parametrize("value", ["0", "4294967295"])
def test_a_table_that_is_gone(connection, value):
    with pytest.raises(psycopg.errors.UndefinedTable) as error:
        written(connection, f"{value}::oid::regclass")
    assert error.value.diag.message_detail and error.value.diag.message_hint


@pytest.mark.parametrize("grant, allowed", [
    (None, False), ("select", False), ("delete, truncate, references, trigger", False), ("update (content)", True),
    ("insert (embedding)", True), ("insert", True), ("update", True),
])
def test_who_may_write_may_note(database, docs, grant, allowed):
    if grant:
        docs.execute(f"grant {grant} on docs to gte_plain")
    plain = database.connect("gte_plain")
    if allowed:
        written(plain)
        assert note(docs) == {"fingerprint": fingerprint(docs)}
    else:
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as error:
            written(plain)
        assert error.value.diag.message_primary == "permission denied for table docs"
        assert note(docs) == {}


def test_a_read_only_transaction(docs):
    docs.execute("begin read only; select embedding_written('docs'); commit")
    assert note(docs) == {}


def test_a_rollback_takes_it_back(docs):
    with docs.transaction(force_rollback=True):
        written(docs)
    assert note(docs) == {}


def test_inside_plpgsql_and_a_savepoint(docs):
    docs.execute("do $$ begin begin perform embedding_written('docs'); raise exception 'back'; exception when raise_exception then null; end; end $$")
    assert note(docs) == {}
    docs.execute("do $$ begin perform embedding_written('docs'); end $$")
    assert note(docs) == {"fingerprint": fingerprint(docs)}


def test_without_a_model_it_says_so(docs):
    use(docs, "/nonexistent/model")
    with pytest.raises(psycopg.errors.UndefinedFile):
        written(docs)
    assert one(docs, "select count(*) from docs") == 0
