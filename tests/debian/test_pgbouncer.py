"""Behind pgbouncer in transaction mode: all clients share one server connection, a transaction at a time.

`scripts/pgbouncer.py` starts pgbouncer and the server.
"""

import contextlib
import json
import os
import pathlib
import sys
import threading

import psycopg
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))

import web_search  # noqa: E402  scripts/web_search.py
from web_database import Database, Job  # noqa: E402

if "GTE_BOUNCER" not in os.environ:
    pytest.skip("needs pgbouncer: run `make test-debian`", allow_module_level=True)
PLACES = json.loads(os.environ["GTE_BOUNCER"])


@pytest.fixture
def connect():
    """Opens connections to pgbouncer. It keeps no prepared statements, so psycopg must make none."""
    opened = []

    def open_one():
        connection = psycopg.connect(f"host={PLACES['pool']} port=6432 dbname=postgres user=anybody", autocommit=True,
                                     prepare_threshold=None)
        opened.append(connection)
        return connection

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def notes():
    with psycopg.connect(PLACES["server"], autocommit=True) as connection:
        connection.execute("drop table if exists notes cascade")
        connection.execute("create table notes (id int generated always as identity primary key, body text)")
        connection.execute("select enable_semantic_search('notes', 'body')")
        yield connection


def value(connection, statement, *parameters):
    return connection.execute(statement, parameters).fetchone()[0]


def nearest(connection, search):
    return value(connection, "select body from search_notes(%s, 1)", search)


def test_clients_take_turns_in_one_session(connect, notes):
    one, two = connect(), connect()
    assert value(one, "select pg_backend_pid()") == value(two, "select pg_backend_pid()")
    one.execute("insert into notes (body) values ('Invoices are due within thirty days.')")
    two.execute("insert into notes (body) values ('The office dog is called Ada.')")
    for number in range(12):
        assert nearest(one, f"when must I pay number {number}?").startswith("Invoices")
        assert nearest(two, f"what is the name of pet {number}?").startswith("The office dog")
    assert value(notes, "select count(*) from notes where embedding = embed(body)") == 2


def test_many_clients_at_once(connect, notes):
    clients, wrong = [connect() for _ in range(8)], []

    def work(client, number):
        client.execute("insert into notes (body) values (%s)", [f"Room {number} is painted in colour {number}."])
        if nearest(client, f"Room {number} is painted in colour {number}.") != f"Room {number} is painted in colour {number}.":
            wrong.append(number)

    threads = [threading.Thread(target=work, args=(client, number)) for number, client in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and value(notes, "select count(*) from notes where embedding = embed(body)") == 8


def test_a_search_leaves_no_settings_to_the_next_client(connect, notes):
    one, two = connect(), connect()
    names = ["hnsw.ef_search", "hnsw.iterative_scan", "plan_cache_mode", "enable_seqscan", "search_path"]
    nearest_of_none = "select count(*) from search_notes('anything', 500)"
    one.execute("select embed('the library is loaded')")
    before = [value(two, "select current_setting(%s)", name) for name in names]
    assert value(one, nearest_of_none) == 0
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        one.execute("select * from query_notes('anything', 5)")
    assert [value(two, "select current_setting(%s)", name) for name in names] == before


def test_settings_belong_to_a_transaction(connect, notes):
    one, two = connect(), connect()
    long = "word " * 2000
    with one.transaction():
        one.execute("set local gte_small.on_truncate = 'error'")
        with pytest.raises(psycopg.errors.StringDataRightTruncation), one.transaction():
            one.execute("insert into notes (body) values (%s)", [long])
    two.execute("insert into notes (body) values (%s)", [long])
    assert value(two, "select count(*) from notes where embedding is not null") == 1


def test_a_rolled_back_transaction_leaves_the_session_usable(connect, notes):
    one, two = connect(), connect()
    with pytest.raises(ZeroDivisionError), one.transaction():
        one.execute("insert into notes (body) values ('never stored')")
        assert nearest(one, "never stored") == "never stored"
        1 / 0
    assert value(two, "select count(*) from search_notes('never stored')") == 0


def test_a_cancelled_call_leaves_the_session_usable(connect, notes):
    one, two = connect(), connect()
    with pytest.raises(psycopg.errors.QueryCanceled), one.transaction():
        one.execute("set local statement_timeout = 100")
        one.execute("select embed(array(select 'text ' || repeat('word ', 200) || i from generate_series(1, 20000) i))")
    assert len(json.loads(value(two, "select embed('cat')::text"))) == 384
    timer = threading.Timer(0.3, one.cancel)
    timer.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        one.execute("select embed(array(select 'text ' || repeat('word ', 200) || i from generate_series(1, 20000) i))")
    timer.join()
    assert len(json.loads(value(two, "select embed('dog')::text"))) == 384


def test_a_backfill_runs_outside_of_a_transaction(connect, notes):
    one = connect()
    notes.execute("set gte_small.defer = on")
    notes.execute("insert into notes (body) select 'number ' || i from generate_series(1, 300) i")
    assert value(one, "select count(*) from notes where embedding is not null") == 0
    one.execute("call embed_backfill('notes', 100)")
    assert value(one, "select count(*) from notes where embedding = embed(body)") == 300


def test_the_search_page_asks_through_the_pool(connect, notes):
    one = connect()
    notes.execute("insert into notes (body) values ('The office dog is called Ada.')")
    before = value(one, "select current_setting('statement_timeout')")
    with contextlib.closing(Database(f"host={PLACES['pool']} port=6432 dbname=postgres user=anybody", 12_000)) as pages:
        with pages.session(Job()) as session:
            assert [table["label"] for table in web_search.overview(session)["tables"]] == ["notes"]
            settings = session.run("select current_setting('transaction_read_only'), current_setting('statement_timeout')")
        assert settings.rows == [["on", "12s"]]
        # The next client has the same server connection.
        assert value(one, "select current_setting('statement_timeout')") == before
        one.execute("insert into notes (body) values ('Written after the page was shown.')")
