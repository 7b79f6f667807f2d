"""`embed` in parallel workers: each worker loads the leader's model, and the rows are the same."""

import pytest

from measure import one

SETTINGS = (
    "set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; "
    "set max_parallel_workers_per_gather = 2; set parallel_leader_participation = off; set jit = off"
)


@pytest.fixture
def sentences(connection):
    connection.execute(
        "create table sentences as select i as id, 'row ' || i as content from generate_series(1, 200) i; "
        "alter table sentences set (parallel_workers = 2); analyze sentences; grant select on sentences to gte_plain"
    )
    return connection


def in_workers(connection):
    """The embeddings of all rows as text, computed without the leader."""
    statement = "select id, embed(content)::text from sentences where length(embed(content)::text) > 100"
    connection.execute(SETTINGS)
    plan = "\n".join(line for (line,) in connection.execute(f"explain (costs off) {statement}"))
    assert "Gather" in plan and "Parallel Seq Scan" in plan, plan
    before = one(connection, "select calls from embed_stats()")
    rows = dict(connection.execute(statement).fetchall())
    assert one(connection, "select calls from embed_stats()") == before, "the leader embedded too"
    connection.execute("set max_parallel_workers_per_gather = 0")
    return rows


def in_the_leader(connection):
    return dict(connection.execute("select id, embed(content)::text from sentences").fetchall())


def test_workers_compute_what_the_leader_computes(sentences):
    rows = in_workers(sentences)
    assert len(rows) == 200 and rows == in_the_leader(sentences)


def test_workers_of_a_plain_role(database, sentences):
    plain = database.connect("gte_plain")
    assert in_workers(plain) == in_the_leader(sentences)


def test_workers_follow_a_model_set_in_the_session(server, sentences):
    usual = in_the_leader(sentences)
    sentences.execute("select set_config('gte_small.model_path', %s, false)", [str(server.tiny_other)])
    rows = in_workers(sentences)
    assert rows == in_the_leader(sentences) and rows[1] != usual[1]


def test_an_error_in_a_worker(sentences):
    """It ends the statement with its own SQLSTATE, and the session can be used afterwards."""
    sentences.execute("select embed('load the library'); set gte_small.model_path = '/nonexistent/model'")
    sentences.execute(SETTINGS)
    with pytest.raises(Exception) as error:
        sentences.execute("select count(embed(content)) from sentences")
    assert error.value.sqlstate == "58P01"
    sentences.execute("reset gte_small.model_path")
    assert one(sentences, "select count(embed(content)) from sentences") == 200


def test_parallel_build_of_an_expression_index(sentences):
    sentences.execute(SETTINGS)
    sentences.execute("set max_parallel_maintenance_workers = 2; set maintenance_work_mem = '64MB'")
    sentences.execute("create index on sentences using hnsw ((embed(content)::vector(384)) vector_ip_ops)")
    sentences.execute("set enable_seqscan = off; set max_parallel_workers_per_gather = 0")
    nearest = one(
        sentences, "select id from sentences order by embed(content)::vector(384) <#> (select embed('row 150')) limit 1"
    )
    assert nearest == 150
