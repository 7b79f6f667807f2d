"""Threads and memory of a session: what a plain user can take, and what a superuser limits.

README's table of memory says what a session keeps. The limits here are far above the values of that table.
"""

import os

import psycopg
import pytest

from measure import embedding, one, proc_file

# Texts of more than 512 tokens, enough of them that each thread has work.
EMBED = "select count(embedded) from unnest(embed(array(select repeat('word ' || i || ' ', 600) from generate_series(1, 24) i))) embedded"

# README: buffers of one thread. A fault here took 9 MB for each of 64 threads.
THREAD_KB = 30 * 1024
# README: the layers of MiniLM in bf16 or, on a CPU without such instructions, in f32.
LAYERS_KB = 50 * 1024
# The vocabulary, the memo and what PostgreSQL itself allocates for these statements.
OTHER_KB = 40 * 1024


def tasks(connection):
    return len(os.listdir(f"/proc/{connection.info.backend_pid}/task"))


def anonymous_kb(connection):
    """Memory of the process alone: neither shared buffers nor pages of the model's file."""
    rollup = proc_file(connection.info.backend_pid, "smaps_rollup")
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Anonymous:"))


@pytest.fixture
def greedy(server, database):
    """A plain user's session that wants 64 threads, on the real model. The library is not loaded yet."""
    database.configure("gte_small.model_path", server.minilm)
    session = database.connect("gte_plain")
    session.execute("set gte_small.threads = 64; set max_parallel_workers_per_gather = 0; set jit = off")
    proc_file(session.info.backend_pid, "status")
    return session


def cores(connection):
    """Threads of a session that wants more than there are."""
    return one(connection, "select threads from embed_model()")


def test_a_plain_user_gets_no_more_threads_than_there_are_cores(greedy):
    before = anonymous_kb(greedy)
    assert one(greedy, EMBED) == 24
    assert 1 <= tasks(greedy) == cores(greedy) <= len(os.sched_getaffinity(0))
    assert one(greedy, "show gte_small.threads") == "64", "the number itself is accepted"
    assert anonymous_kb(greedy) - before < LAYERS_KB + OTHER_KB + cores(greedy) * THREAD_KB


def test_max_threads_limits_every_session(database, greedy):
    database.configure("gte_small.max_threads", 1)
    for wanted in (0, 2, 64):
        session = database.connect("gte_plain")
        session.execute(f"set gte_small.threads = {wanted}")
        before = anonymous_kb(session)
        assert one(session, EMBED) == 24
        assert (tasks(session), cores(session)) == (1, 1)
        assert anonymous_kb(session) - before < LAYERS_KB + OTHER_KB + THREAD_KB
    database.configure("gte_small.max_threads", 64)
    session = database.connect("gte_plain")
    session.execute("set gte_small.threads = 64")
    assert cores(session) == cores(greedy), "a limit above the cores counts as the cores"


def test_a_plain_user_does_not_raise_the_limit(database, greedy):
    embedding(greedy, "load the library")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        greedy.execute("set gte_small.max_threads = 64")
    # Before the library is loaded, anybody may set it. The library does not take that value.
    database.configure("gte_small.max_threads", 1)
    early = database.connect("gte_plain")
    early.execute("set gte_small.max_threads = 64")
    early.execute("set gte_small.threads = 64")
    assert one(early, EMBED) == 24
    assert tasks(early) == 1


@pytest.mark.parametrize("sink", ["set gte_small.threads = 1", "set gte_small.max_threads = 1", "both"])
def test_threads_end_and_their_memory_comes_back(database, greedy, sink):
    session = database.connect()
    session.execute("set gte_small.memo_size = 0; set max_parallel_workers_per_gather = 0; set jit = off")
    session.execute("set gte_small.threads = 1")
    assert one(session, EMBED) == 24
    session.execute("set gte_small.threads = 64")
    if cores(session) == 1:
        pytest.skip("needs a second core")
    alone = anonymous_kb(session)
    assert one(session, EMBED) == 24
    helpers = tasks(session) - 1
    most = anonymous_kb(session)
    assert helpers > 0 and most > alone
    session.execute("set gte_small.threads = 1; set gte_small.max_threads = 1" if sink == "both" else sink)
    embedding(session, "the next text")
    assert (tasks(session), cores(session)) == (1, 1)
    # The C library keeps up to 2 MB of a thread for the next one.
    assert anonymous_kb(session) < alone + (most - alone) // 2 + 2048 * helpers
    session.execute("reset gte_small.max_threads; set gte_small.threads = 64")
    assert one(session, EMBED) == 24 and tasks(session) == helpers + 1, "they start again"


def test_a_cancelled_call_does_not_keep_its_threads(database, greedy):
    """A cancel unwinds through the call that has the threads."""
    greedy.execute("set statement_timeout = '300ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        greedy.execute(EMBED.replace("24", "20000"))
    greedy.execute("reset statement_timeout; set gte_small.threads = 1")
    embedding(greedy, "the next text")
    assert tasks(greedy) == 1
