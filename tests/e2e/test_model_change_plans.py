"""A change of model reaches the plans that a session keeps: `embed` of a constant is part of such a plan."""

import psycopg
import pytest
from psycopg import sql

from measure import embedding, max_abs, one

# Each way keeps a plan with the vector of 'a cat' in it. The statement returns that vector as text.
KEPT = {
    "prepared statement": ("prepare kept as select embed('a cat')::text", "execute kept"),
    "prepared statement with a parameter": ("set plan_cache_mode = force_generic_plan; prepare kept(int) as select embed('a cat')::text where $1 = 1", "execute kept(1)"),
    "PL/pgSQL expression": ("create function kept() returns text language plpgsql as $$ begin return embed('a cat')::text; end $$", "select kept()"),
    "PL/pgSQL query": ("create function kept() returns text language plpgsql as $$ declare r text; begin select embed('a cat')::text into r from pg_class limit 1; return r; end $$", "select kept()"),
    "SQL function": ("create function kept() returns text language sql volatile set work_mem = '4MB' as $$ select embed('a cat')::text from pg_class limit 1 $$", "select kept()"),
}


def kept(connection, statement):
    return [float(number) for number in one(connection, statement).strip("[]").split(",")]


def use(connection, model):
    connection.execute("select set_config('gte_small.model_path', %s, false)", [str(model)])


def same(vector, other):
    return max_abs(vector, other) < 1e-6


@pytest.mark.parametrize("prepare, statement", KEPT.values(), ids=KEPT.keys())
def test_a_kept_plan_has_the_vector_of_the_model_in_use(server, connection, prepare, statement):
    connection.execute(prepare)
    for _ in range(7):
        first = kept(connection, statement)
    assert same(first, embedding(connection, "a cat"))
    use(connection, server.tiny_other)
    second = kept(connection, statement)
    assert not same(first, second)
    assert same(second, embedding(connection, "a cat"))
    connection.execute("reset gte_small.model_path")
    assert same(kept(connection, statement), first)


def test_a_kept_plan_after_a_rollback_and_a_savepoint(server, connection):
    connection.execute(KEPT["prepared statement"][0])
    first = kept(connection, "execute kept")
    with connection.transaction(force_rollback=True):
        connection.execute("savepoint before")
        use(connection, server.tiny_other)
        second = kept(connection, "execute kept")
        assert not same(first, second)
        connection.execute("rollback to savepoint before")
        assert same(kept(connection, "execute kept"), first)
        use(connection, server.tiny_other)
        assert same(kept(connection, "execute kept"), second)
    assert same(kept(connection, "execute kept"), first)


def test_a_kept_plan_after_a_failed_statement_that_set_the_model(server, connection):
    connection.execute(KEPT["prepared statement"][0])
    first = kept(connection, "execute kept")
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("do $$ begin perform set_config('gte_small.model_path', '%s', false); perform embed('a cat'), 1 / 0; end $$" % server.tiny_other)
    assert same(kept(connection, "execute kept"), first)


def test_a_kept_search_by_a_constant(server, connection):
    connection.execute("create table docs (id int primary key, content text); select enable_semantic_search('docs', with_index => false);"
                       "insert into docs select i, 'text ' || i from generate_series(1, 20) i; prepare kept as select id from query_docs('text 7', 0.99) limit 1")
    for _ in range(7):
        assert one(connection, "execute kept") == 7
    use(connection, server.tiny_other)
    connection.execute("call embed_backfill('docs', force => true)")
    assert one(connection, "execute kept") == 7


def test_a_kept_plan_after_files_were_overwritten_in_place(server, connection, model_copy):
    use(connection, model_copy)
    connection.execute(KEPT["prepared statement"][0])
    first = kept(connection, "execute kept")
    weights = (server.tiny_other / "model.safetensors").read_bytes()
    with open(model_copy / "model.safetensors", "r+b") as file:
        file.write(weights)
        file.truncate()
    # The session sees the new files when it embeds.
    another = embedding(connection, "a dog")
    assert len(another) == 384
    assert not same(kept(connection, "execute kept"), first)


def test_a_kept_plan_after_a_reload_of_the_configuration(server):
    with server.another("plans", {"gte_small.model_path": str(server.tiny)}) as cluster:
        with psycopg.connect(cluster.dsn(dbname="postgres", user="postgres"), autocommit=True, prepare_threshold=None) as connection:
            connection.execute(KEPT["prepared statement"][0])
            first = kept(connection, "execute kept")
            connection.execute(sql.SQL("alter system set gte_small.model_path = {}").format(sql.Literal(str(server.tiny_other))))
            connection.execute("select pg_reload_conf()")
            for _ in range(100):
                if one(connection, "show gte_small.model_path") == str(server.tiny_other):
                    break
                connection.execute("select pg_sleep(0.1)")
            second = kept(connection, "execute kept")
            assert not same(first, second)
            assert same(second, embedding(connection, "a cat"))
