"""Backends over time: interrupts, several sessions, the memo, pools, and real clients."""

import threading
import time

import psycopg
import pytest

from measure import counting, embedding, max_abs, memory_kb, one, vector, wait_until_active

# Two thousand texts of a full window: minutes of work on the real weights.
LONG_WORK = "select embed(array_agg(repeat('a b c d e f g h ', 100) || i)) from generate_series(1, 2000) i"


@pytest.fixture
def working(minilm_database):
    """A backend with the real weights loaded, about to be interrupted."""
    connection = minilm_database.connect()
    connection.execute("set gte_small.memo_size = 0; set max_parallel_workers_per_gather = 0")
    embedding(connection, "load")
    yield connection
    connection.close()


def interrupted(connection, statement):
    with pytest.raises(psycopg.errors.QueryCanceled) as error:
        connection.execute(statement)
    assert error.value.sqlstate == "57014"
    assert len(embedding(connection, "the next call")) == 384


@pytest.mark.parametrize("statement", [LONG_WORK, "select count(embed('text ' || i)) from generate_series(1, 1000000) i"],
                         ids=["array", "single"])
def test_cancel(minilm_database, working, statement):
    watcher, pid = minilm_database.connect(), working.info.backend_pid
    cancelled = []

    def cancel():
        wait_until_active(watcher, pid)
        time.sleep(0.3)
        cancelled.append(one(watcher, "select pg_cancel_backend(%s)", [pid]))

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        interrupted(working, statement)
    finally:
        canceller.join()
        watcher.close()
    assert cancelled == [True]


def test_statement_timeout(working):
    working.execute("set statement_timeout = '300ms'")
    interrupted(working, LONG_WORK)


def test_terminate(minilm_database, working):
    watcher, pid = minilm_database.connect(), working.info.backend_pid

    def terminate():
        wait_until_active(watcher, pid)
        time.sleep(0.2)
        one(watcher, "select pg_terminate_backend(%s)", [pid])

    killer = threading.Thread(target=terminate)
    killer.start()
    with pytest.raises(psycopg.OperationalError) as error:
        working.execute(LONG_WORK)
    killer.join()
    assert error.value.sqlstate == "57P01"
    assert len(embedding(watcher, "others go on")) == 384
    watcher.close()


def test_a_cancelled_insert_leaves_nothing(database):
    database.configure("gte_small.model_path", database.server.minilm)
    connection = database.connect()
    database.apply_embeddings_sql(connection)
    embedding(connection, "load")
    connection.execute("set statement_timeout = '300ms'")
    interrupted(connection, "insert into embeddings (content) select repeat('a b c d ', 60) || i from generate_series(1, 2000) i")
    assert one(connection, "select count(*) from embeddings") == 0


def test_two_sessions_at_once(database):
    """Each backend has its own model; what one computes the other computes too."""
    results = {}

    def work(name):
        connection = database.connect()
        results[name] = [embedding(connection, f"text {i}") for i in range(100)]

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results["one"]) == 100 and results["one"] == results["two"]


def test_writers_and_readers_at_once(database, tutorial):
    def write(name):
        connection = database.connect()
        for i in range(30):
            connection.execute("insert into embeddings (content) values (%s)", [f"{name} {i}"])

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for _ in range(10):
        tutorial.execute("select content from query_embeddings('a 1', 0.5) limit 3").fetchall()
    for thread in threads:
        thread.join()
    assert one(tutorial, "select count(*) from embeddings where embedding::text = embed(content)::text") == 60


# --- the memo ---


def test_memo_hits(connection):
    with counting(connection) as counted:
        first = embedding(connection, "a cat")
        assert embedding(connection, "a cat") == first
    assert (counted.calls, counted.texts, counted.memo_hits) == (2, 1, 1)


def test_memo_is_exact(connection):
    with counting(connection) as counted:
        for text in ("cat", "Cat", "cat ", "cat"):
            embedding(connection, text)
    assert (counted.texts, counted.memo_hits) == (3, 1)


def test_memo_off(connection):
    embedding(connection, "a cat")
    connection.execute("set gte_small.memo_size = 0")
    with counting(connection) as counted:
        embedding(connection, "a cat")
        embedding(connection, "a cat")
    assert (counted.texts, counted.memo_hits) == (2, 0)


def test_memo_forgets_the_oldest(connection):
    connection.execute("set gte_small.memo_size = 3")
    for text in ("one", "two", "three", "four"):
        embedding(connection, text)
    with counting(connection) as counted:
        embedding(connection, "four")
        embedding(connection, "three")
        embedding(connection, "one")
    assert (counted.texts, counted.memo_hits) == (1, 2)


def test_memo_shrinks_with_the_setting(connection):
    for text in ("one", "two", "three"):
        embedding(connection, text)
    connection.execute("set gte_small.memo_size = 1")
    with counting(connection) as counted:
        embedding(connection, "three")
        embedding(connection, "two")
    assert (counted.texts, counted.memo_hits) == (1, 1)


def test_memo_is_not_shared_between_models(server, connection):
    embedding(connection, "a cat")
    connection.execute("select set_config('gte_small.model_path', %s, false)", [str(server.tiny_other)])
    with counting(connection) as counted:
        embedding(connection, "a cat")
    assert (counted.texts, counted.memo_hits) == (1, 0)


def test_memo_between_the_forms(connection):
    """A search for a text that was just written, and its trigger, cost one run together."""
    single = embedding(connection, "a cat")
    with counting(connection) as counted:
        assert vector(connection, "embed_query('a cat')") == single
    assert (counted.texts, counted.memo_hits) == (0, 1)


def test_memo_is_bounded_by_bytes(connection, model_copy):
    """A thousand texts of 60 kB do not stay in the backend. The model reads 16 tokens of each: it is not what is measured."""
    (model_copy / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    connection.execute("select set_config('gte_small.model_path', %s, false)", [str(model_copy)])
    connection.execute("set gte_small.memo_size = 10000; set jit = off")
    embedding(connection, "load " * 100)
    resident = memory_kb(connection.info.backend_pid, "VmRSS")
    with counting(connection) as counted:
        connection.execute("select count(embed(i || repeat(' word', 12000))) from generate_series(1, 1000) i")
    assert counted.texts == 1000
    assert memory_kb(connection.info.backend_pid, "VmRSS") - resident < 30 * 1024


# --- clients ---


def test_psql(database, connection):
    if connection.info.server_version < 160000:
        pytest.skip("\\bind came with psql 16")
    answer = database.psql(
        "select vector_dims(embed('a cat')); \\bind 'a cat'\nselect embed($1)::text = embed('a cat')::text \\g\n",
        args=["-A", "-t", "-q"],
    )
    assert answer.stdout.split() == ["384", "t"]


@pytest.mark.parametrize("prepare", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_psycopg(tutorial, prepare, binary):
    """Untyped parameters, as psycopg sends strings, in both protocols and both formats."""
    cursor = tutorial.cursor(binary=binary)
    cursor.execute("insert into embeddings (content) values (%s)", ["a cat"], prepare=prepare)
    rows = cursor.execute("select content from query_embeddings(%s, %s) limit 3", ["a cat", 0.9], prepare=prepare).fetchall()
    assert rows == [("a cat",)]
    rows = cursor.execute("select content from query_embeddings(embed(%s), %s, %s)", ["a cat", 0.9, 3], prepare=prepare).fetchall()
    assert rows == [("a cat",)]


def test_psycopg_client_side_binding(database, tutorial):
    client = psycopg.ClientCursor(tutorial)
    client.execute("insert into embeddings (content) values (%s)", ["it's a cat \\ o/"])
    assert client.execute("select content from query_embeddings(%s, %s)", ["it's a cat \\ o/", 0.9]).fetchall() == [("it's a cat \\ o/",)]


def test_a_vector_as_a_parameter_wants_a_cast(tutorial):
    tutorial.execute("insert into embeddings (content) values ('a cat')")
    literal = one(tutorial, "select embed('a cat')::text")
    assert one(tutorial, "select content from query_embeddings(%s::vector, 0.9)", [literal]) == "a cat"
    assert one(tutorial, "select content from query_embeddings(embedding := %s, match_threshold := 0.9)", [literal]) == "a cat"
    with pytest.raises(psycopg.Error) as error:
        tutorial.execute("select content from query_embeddings(%s, 0.9)", [literal])
    assert error.value.sqlstate == "22023" and "::vector" in error.value.diag.message_hint


def test_pool_reset(database, tutorial):
    """What a pool does between two clients; the model stays loaded, settings go back."""
    tutorial.execute("insert into embeddings (content) values ('a cat')")
    tutorial.execute("set gte_small.memo_size = 0; set gte_small.on_truncate = error")
    for _ in range(3):
        tutorial.execute("discard all")
        assert one(tutorial, "show gte_small.memo_size") == "128"
        assert one(tutorial, "show gte_small.on_truncate") == "silent"
        assert tutorial.execute("select content from query_embeddings('a cat', 0.9) limit 3").fetchall() == [("a cat",)]
    tutorial.execute("insert into embeddings (content) values ('a dog')")
    assert one(tutorial, "select embedding::text = embed('a dog')::text from embeddings where content = 'a dog'")


def test_errors_do_not_wear_a_backend_out(connection):
    """Hundreds of errors in one transaction's subtransactions: each is caught, and the next call works."""
    connection.execute("set gte_small.on_truncate = error")
    connection.execute(
        "do $$ begin for i in 1..500 loop begin perform embed_query('  '); raise 'no error'; "
        "exception when invalid_parameter_value then null; end; end loop; "
        "for i in 1..20 loop begin perform embed(i || repeat(' word', 600)); raise 'no error'; "
        "exception when string_data_right_truncation then null; end; end loop; end $$"
    )
    assert max_abs(embedding(connection, "a cat"), vector(connection, "(embed(array['a cat', 'b']))[1]")) <= 1e-6
