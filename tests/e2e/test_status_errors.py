"""What the functions that report on a table say of a target they can't read: a fact, a consequence and an action."""

import psycopg
import pytest

from backfills import make, refused
from measure import one
from test_status import status

REPORTS = ("embedding_status", "embed_verify", "suggest_threshold", "embedding_recall")


@pytest.fixture
def docs(connection):
    make(connection, 30)
    connection.execute("call embed_backfill('docs')")
    connection.execute("create view shown as select * from docs; create materialized view kept as select * from docs")
    return connection


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("target, sqlstate", [("null", "22004"), ("99999::oid", "42P01"), ("'shown'", "42809"), ("'kept'", "42809"), ("'docs_pkey'", "42809")])
def test_a_target_that_is_no_table(docs, report, target, sqlstate):
    if report == "embedding_status" and sqlstate == "42809":
        # A query over all relations passes views, so a status of none is no error.
        heard = []
        docs.add_notice_handler(lambda d: heard.append((d.message_detail, d.message_hint)))
        assert docs.execute(f"select * from embedding_status({target})").fetchall() == []
        assert len(heard) == 1 and all(heard[0])
    else:
        refused(docs, f"select * from {report}({target})", sqlstate)


@pytest.mark.parametrize("report", REPORTS)
def test_a_table_that_the_caller_may_not_read(docs, report):
    docs.execute("set role gte_plain")
    said = refused(docs, f"select * from {report}('docs')", "42501")
    assert "GRANT SELECT ON public.docs TO gte_plain" in said.message_hint
    docs.execute("reset role; grant select on docs to gte_plain; set role gte_plain")
    assert docs.execute(f"select * from {report}('docs')").fetchall()


def test_privileges_of_columns(docs):
    """Only what is read is needed: the places of rows are part of the whole table."""
    docs.execute("grant select (embedding) on docs to gte_plain; set role gte_plain")
    assert one(docs, "select suggest_threshold('docs')") is not None
    assert "column content of" in refused(docs, "select * from embedding_status('docs')", "42501").message_primary
    docs.execute("reset role; grant select (content) on docs to gte_plain; set role gte_plain")
    assert one(docs, "select rows from embedding_status('docs')") == 30
    for report in ("embed_verify", "embedding_recall"):
        refused(docs, f"select * from {report}('docs')", "42501")


@pytest.mark.parametrize("report", REPORTS)
def test_a_temporary_table_of_another_session(database, connection, report):
    connection.execute("create temp table docs (id int, content text); select enable_semantic_search('docs')")
    other = database.connect()
    oid = one(connection, "select 'docs'::regclass::oid")
    said = refused(other, f"select * from {report}({oid})", "0A000")
    assert "another session" in said.message_primary


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("begin", ["begin read only", "begin isolation level serializable", "begin isolation level repeatable read read only"])
def test_transactions_that_may_not_write(docs, report, begin):
    docs.execute(begin)
    assert docs.execute(f"select * from {report}('docs')").fetchall()
    docs.execute("commit")


def test_a_dropped_text_column(connection):
    make(connection, 5, definition="id int, content text, title text", insert="select i, 'text ' || i, 'title ' || i from generate_series(1, {}) i")
    connection.execute("alter table docs drop content")
    told = status(connection)
    assert told["state"] == "broken" and told["rows"] is None
    with pytest.raises(psycopg.Error):
        connection.execute("insert into docs (id) values (9)")
    for report in REPORTS[1:]:
        refused(connection, f"select * from {report}('docs')", "42703")
    mend, end = (hint.partition(": ")[2] for hint in told["hints"])
    with connection.transaction(force_rollback=True):
        connection.execute(end)
        connection.execute("insert into docs (id) values (9)")
    connection.execute(mend)
    assert one(connection, "select content from embedding_columns('docs')") == ["title"]
    connection.execute("insert into docs (id, title) values (9, 'new')")
    assert status(connection)["state"] != "broken"


def test_a_dropped_embedding_column(connection):
    make(connection, 5)
    connection.execute("alter table docs drop embedding")
    mend, end = (hint.partition(": ")[2] for hint in status(connection)["hints"])
    with connection.transaction(force_rollback=True):
        connection.execute(end)
        connection.execute("insert into docs (id) values (9)")
    connection.execute(mend)
    connection.execute("insert into docs (id, content) values (9, 'new')")
    assert one(connection, "select embedding is not null from docs where id = 9")


def test_a_standby(server):
    """All reports work on a standby, except on tables whose rows are on the primary only."""
    with server.another("reports", {"gte_small.model_path": str(server.tiny)}) as cluster:
        cluster.psql("create table docs (id int, content text); select enable_semantic_search('docs'); insert into docs select i, 'text ' || i from generate_series(1, 30) i;"
                     "create unlogged table fast (id int, content text); select enable_semantic_search('fast')")
        cluster.stop()
        (cluster.data / "standby.signal").touch()
        cluster.start()
        with psycopg.connect(cluster.dsn(dbname="postgres", user="postgres"), autocommit=True) as standby:
            for report in REPORTS:
                assert standby.execute(f"select * from {report}('docs')").fetchall()
                said = refused(standby, f"select * from {report}('fast')", "55000")
                assert "primary" in said.message_hint
            assert standby.execute("select checked, wrong from embed_verify('docs', null)").fetchone() == (30, 0)
