"""All ways to end a statement that embeds: the SQLSTATE, the stored rows, and the backend afterwards.

The two statements would take minutes on the real weights: embed(text[]), and a COPY whose rows the trigger embeds. They
are sent without waiting for the answer, so that the test can end them from outside.
"""

import os
import socket
import time

import psycopg
import pytest
from psycopg import pq

from measure import begin, embedding, memory_kb, one, sqlstate, wait_until

# Number of statements that are ended one after the other. The backend's size in the second half is compared with the first.
ROUNDS = 12
LONG_TEXT = "a b c d e f g h " * 100
ARRAY = f"select embed(array_agg('{LONG_TEXT}' || i)) from generate_series(1, 2000) i"
SINGLE = "select count(embed('text ' || i)) from generate_series(1, 1000000) i"


@pytest.fixture(scope="module")
def database(server):
    database = server.create_database()
    database.configure("gte_small.model_path", server.minilm)
    database.apply_embeddings_sql(database.connect())
    yield database
    database.drop()


@pytest.fixture(scope="module")
def rows_file(server):
    """Rows for COPY, in a file that the server can read."""
    path = server.scratch / "long-rows.txt"
    path.write_text("".join(f"{LONG_TEXT}{i}\n" for i in range(2000)))
    yield path
    path.unlink()


@pytest.fixture
def statements(rows_file):
    return {"array": ARRAY, "single": SINGLE, "copy": f"copy embeddings (content) from '{rows_file}'"}


@pytest.fixture
def working(database):
    """A backend with the model loaded."""
    connection = database.connect()
    connection.execute("set gte_small.memo_size = 0; set gte_small.threads = 2; set max_parallel_workers_per_gather = 0; set jit = off")
    embedding(connection, LONG_TEXT)
    yield connection
    connection.close()


@pytest.fixture
def watcher(database):
    with database.connect() as connection:
        yield connection


def assert_level(sizes):
    """If a statement kept its memory, six of them would keep over 8 MB. Buffers change in steps of 1.5 to 3.5 MB."""
    half = len(sizes) // 2
    assert max(sizes[half:]) - max(sizes[:half]) < 8192, sizes


def stored(connection):
    return one(connection, "select count(*) from embeddings")


def lives(watcher, pid):
    return one(watcher, "select count(*) from pg_stat_activity where pid = %s", [pid]) == 1


def lose(connection):
    """The client's machine is gone: the socket closes without a message of the protocol."""
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("kind", ["array", "single", "copy"])
def test_cancel(working, watcher, statements, kind):
    """57014 each time, the next call works, and the backend frees its memory."""
    pid, sizes = working.info.backend_pid, []
    for _ in range(ROUNDS):
        begin(working, statements[kind])
        assert one(watcher, "select pg_cancel_backend(%s)", [pid])
        assert sqlstate(working) == "57014"
        assert len(embedding(working, "the next call")) == 384
        sizes.append(memory_kb(pid, "RssAnon"))
    assert_level(sizes)
    assert stored(watcher) == 0


@pytest.mark.parametrize("kind", ["array", "copy"])
def test_statement_timeout(working, watcher, statements, kind):
    pid, sizes = working.info.backend_pid, []
    working.execute("set statement_timeout = '150ms'")
    for _ in range(ROUNDS):
        working.pgconn.send_query(statements[kind].encode())
        assert sqlstate(working) == "57014"
        assert len(embedding(working, "the next call")) == 384
        sizes.append(memory_kb(pid, "RssAnon"))
    assert_level(sizes)
    assert stored(watcher) == 0


@pytest.mark.parametrize("kind", ["array", "copy"])
def test_terminate(database, working, watcher, statements, kind):
    pid = working.info.backend_pid
    begin(working, statements[kind])
    assert one(watcher, "select pg_terminate_backend(%s)", [pid])
    assert sqlstate(working) == "57P01"
    wait_until(lambda: not lives(watcher, pid))
    assert stored(watcher) == 0
    assert len(embedding(watcher, "others go on")) == 384


@pytest.mark.parametrize("kind", ["array", "copy"])
def test_a_lost_client(working, watcher, statements, kind):
    """The server checks the connection to its client while it embeds, if this is set."""
    pid = working.info.backend_pid
    working.execute("set client_connection_check_interval = '50ms'")
    begin(working, statements[kind])
    lose(working)
    wait_until(lambda: not lives(watcher, pid))
    assert stored(watcher) == 0
    assert len(embedding(watcher, "others go on")) == 384


def test_a_lost_client_who_was_sending_rows(working, watcher):
    """COPY FROM STDIN needs no setting: the server notices at the next read."""
    pid = working.info.backend_pid
    working.pgconn.send_query(b"copy embeddings (content) from stdin")
    working.pgconn.flush()
    assert working.pgconn.get_result().status == pq.ExecStatus.COPY_IN
    working.pgconn.put_copy_data(f"{LONG_TEXT}\n".encode() * 20)
    while working.pgconn.flush():
        time.sleep(0.005)
    lose(working)
    wait_until(lambda: not lives(watcher, pid))
    assert stored(watcher) == 0


def test_without_the_setting_a_statement_outlives_its_client(working, watcher):
    """As any statement of PostgreSQL: it completes and commits, and then the backend ends."""
    pid = working.info.backend_pid
    begin(working, f"insert into embeddings (content) select '{LONG_TEXT}' || i from generate_series(1, 60) i")
    lose(working)
    wait_until(lambda: not lives(watcher, pid))
    try:
        assert one(watcher, "select count(*) from embeddings where embedding is not null") == 60
    finally:
        watcher.execute("truncate embeddings")


def test_fast_shutdown(server, statements, rows_file):
    """`pg_ctl stop -m fast` ends both statements, the server stops, and after a start the next call works."""
    with server.another("shutdown", {"gte_small.model_path": str(server.minilm)}) as cluster:
        cluster.psql(server.embeddings_sql.read_text())
        busy = [psycopg.connect(cluster.dsn(), autocommit=True) for _ in range(2)]
        for connection, kind in zip(busy, ("array", "copy")):
            begin(connection, statements[kind])
        cluster.stop("fast")
        assert [sqlstate(connection) for connection in busy] == ["57P01", "57P01"]
        assert "database system is shut down" in cluster.log_tail(3)
        cluster.start()
        with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
            assert stored(connection) == 0
            assert len(embedding(connection, "the next call")) == 384
