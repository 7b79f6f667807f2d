"""Backends over time: several sessions, the memo, connection pools, and real clients."""

import threading

import psycopg
import pytest

from measure import counting, embedding, max_abs, memory_kb, one, vector


def test_two_sessions_at_once(database):
    """Each backend has its own model. Two backends compute the same vectors."""
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
    """The trigger for a new text and a search for the same text cost one run together."""
    single = embedding(connection, "a cat")
    with counting(connection) as counted:
        assert vector(connection, "embed_query('a cat')") == single
    assert (counted.texts, counted.memo_hits) == (0, 1)


def test_memo_is_bounded_by_bytes(connection, model_copy):
    """A thousand texts of 60 kB do not stay in the backend. The model reads only 16 tokens of each, to save time."""
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
    """A connection pool resets a session between two clients: the model stays loaded, the settings are reset."""
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
    """Hundreds of errors in subtransactions of one transaction: each is caught, and the next call works."""
    connection.execute("set gte_small.on_truncate = error")
    connection.execute(
        "do $$ begin for i in 1..500 loop begin perform embed_query('  '); raise 'no error'; "
        "exception when invalid_parameter_value then null; end; end loop; "
        "for i in 1..20 loop begin perform embed(i || repeat(' word', 600)); raise 'no error'; "
        "exception when string_data_right_truncation then null; end; end loop; end $$"
    )
    assert max_abs(embedding(connection, "a cat"), vector(connection, "(embed(array['a cat', 'b']))[1]")) <= 1e-6
