"""shared_preload_libraries: the postmaster loads the model once, and no thread exists before a fork."""

import json
import os
import pathlib
import shutil

import psycopg
import pytest

from measure import embedding, one

# Signals that no thread can block: KILL, STOP, and two of the C library.
UNBLOCKABLE = {9, 19, 32, 33}


@pytest.fixture(scope="module")
def preloading(server):
    """A second cluster that preloads the library. Tests restart it with another model and back."""
    settings = {"shared_preload_libraries": "gte-small", "gte_small.model_path": str(server.minilm)}
    with server.another("preload", settings) as cluster:
        yield cluster


@pytest.fixture
def session(preloading):
    with psycopg.connect(preloading.dsn(), autocommit=True) as connection:
        yield connection


def threads_of(pid):
    return {int(task): pathlib.Path(f"/proc/{pid}/task/{task}/status").read_text() for task in os.listdir(f"/proc/{pid}/task")}


def blocked_by(status):
    mask = int(next(line for line in status.splitlines() if line.startswith("SigBlk:")).split()[1], 16)
    return {signal for signal in range(1, 65) if mask >> (signal - 1) & 1}


def private_kilobytes(pid):
    rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))


def pid_of(connection):
    return one(connection, "select pg_backend_pid()")


def test_a_session_has_the_model_from_the_start(session, minilm):
    assert one(session, "select preloaded from embed_model()")
    assert embedding(session, "a cat") == embedding(minilm, "a cat")
    assert not one(minilm, "select preloaded from embed_model()")


def test_no_thread_before_the_first_text(preloading, session):
    assert len(threads_of(preloading.pid())) == 1
    assert one(session, "select name from embed_model()") == "all-MiniLM-L6-v2"
    assert len(threads_of(pid_of(session))) == 1


@pytest.mark.parametrize("wanted", [1, 2, 4])
def test_threads_of_the_model_block_every_signal(session, wanted):
    session.execute(f"set gte_small.threads = {wanted}")
    session.execute("select embed(array(select 'text number ' || i from generate_series(1, 200) i))")
    pid = pid_of(session)
    threads = threads_of(pid)
    assert len(threads) == min(wanted, one(session, "select threads from embed_model()")), "the backend's own thread is one of them"
    main = blocked_by(threads.pop(pid))
    assert not main & {2, 15}, "the backend itself no longer takes INT and TERM"
    for status in threads.values():
        assert blocked_by(status) | UNBLOCKABLE >= set(range(1, 65)), status


def test_the_weights_are_shared(session):
    """Private memory after the first text: 8 MB are allowed; the model has 90 MB."""
    pid = pid_of(session)
    session.execute("select 1")
    before = private_kilobytes(pid)
    embedding(session, "a cat sat on the mat and looked at the rain")
    assert private_kilobytes(pid) - before <= 8 * 1024


def test_a_session_may_have_another_model(preloading, server):
    with psycopg.connect(preloading.dsn(), autocommit=True) as other:
        other.execute(f"set gte_small.model_path = '{server.tiny}'")
        assert not one(other, "select preloaded from embed_model()")
        assert one(other, "select vector_dims(embed('a cat'))") == 384


def test_a_missing_model_does_not_stop_the_server(preloading, server):
    """The log has a line about it. Each session tries again, and the first call after the files appear works."""
    directory = server.scratch / "comes-later"
    shutil.rmtree(directory, ignore_errors=True)
    preloading.stop()
    preloading.start({"gte_small.model_path": str(directory)})
    try:
        assert 'model file "model.safetensors" does not exist' in preloading.log.read_text(errors="replace")
        with psycopg.connect(preloading.dsn(), autocommit=True) as connection:
            with pytest.raises(psycopg.errors.UndefinedFile):
                connection.execute("select embed('a cat')")
            shutil.copytree(server.tiny, directory)
            assert one(connection, "select vector_dims(embed('a cat'))") == 384
            assert not one(connection, "select preloaded from embed_model()")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        preloading.stop()
        preloading.start({"gte_small.model_path": str(server.minilm)})


def test_a_tokenizer_its_library_trips_over_does_not_stop_the_server(preloading, server):
    directory = server.scratch / "trips"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(server.tiny, directory)
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    tokenizer["post_processor"]["special_tokens"] = {}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    preloading.stop()
    preloading.start({"gte_small.model_path": str(directory)})
    try:
        with psycopg.connect(preloading.dsn(), autocommit=True) as connection:
            with pytest.raises(psycopg.errors.DataCorrupted) as raised:
                connection.execute("select embed('a cat')")
            assert 'model file "tokenizer.json" is broken' in str(raised.value)
    finally:
        shutil.rmtree(directory)
        preloading.stop()
        preloading.start({"gte_small.model_path": str(server.minilm)})
