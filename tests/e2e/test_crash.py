"""kill -9 of one backend while several embed: PostgreSQL restarts as usual, and everything works as before."""

import signal
import os

import psycopg
import pytest

from measure import begin, embedding, one, sqlstate, wait_until

WORK = "select embed(array_agg(repeat('a b c d e f g h ', 100) || i)) from generate_series(1, 2000) i"


@pytest.fixture(scope="module")
def fragile(server):
    with server.another("crash", {"gte_small.model_path": str(server.minilm)}) as cluster:
        cluster.psql(server.embeddings_sql.read_text())
        cluster.psql("insert into embeddings (content) values ('stored before')")
        yield cluster


@pytest.mark.parametrize("library", ["", "gte-small"], ids=["alone", "preloaded"])
def test_the_server_restarts_by_itself(fragile, library):
    fragile.stop()
    fragile.start({"shared_preload_libraries": library})
    with psycopg.connect(fragile.dsn(), autocommit=True) as connection:
        before = embedding(connection, "a cat")
    said = len(fragile.log.read_text(errors="replace"))

    busy = [psycopg.connect(fragile.dsn(), autocommit=True) for _ in range(4)]
    for connection in busy:
        begin(connection, WORK)
    os.kill(busy[0].info.backend_pid, signal.SIGKILL)
    # PostgreSQL ends the other sessions, as after any crash. One of them may end without reporting it.
    assert {sqlstate(connection) for connection in busy} <= {"57P02", "gone"}
    for connection in busy:
        connection.close()

    wait_until(lambda: answers(fragile))
    log = fragile.log.read_text(errors="replace")[said:]
    assert log.count("was terminated by signal") == 1 and "was terminated by signal 9" in log
    assert "all server processes terminated; reinitializing" in log
    with psycopg.connect(fragile.dsn(), autocommit=True) as connection:
        assert one(connection, "select preloaded from embed_model()") == bool(library)
        assert embedding(connection, "a cat") == before
        connection.execute("insert into embeddings (content) values ('stored afterwards')")
        assert one(connection, "select bool_and(embedding::text = embed(content)::text) from embeddings")


def answers(cluster):
    try:
        psycopg.connect(cluster.dsn()).close()
    except psycopg.OperationalError:
        return False
    return True
