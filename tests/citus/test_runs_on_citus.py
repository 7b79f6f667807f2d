"""Where the model runs: once for a search, on the worker for a row, never for a move."""

import time

import citus_nodes
import pytest

COUNT = ("select coalesce(sum(calls), 0)::int from pg_stat_user_functions "
         "where funcname in ('embed', 'embed_query', 'embed_trigger')")


def counted(nodes, action, servers=None):
    """The calls of the model's functions on coordinator and workers, or on these servers, during `action`."""
    def settle():
        # Sessions report their counts at most once a second, and when they end.
        time.sleep(1.2)
        return [node.value("select pg_stat_force_next_flush() is not null") and node.value(COUNT) for node in servers or nodes.all]
    before = settle()
    action()
    after = settle()
    return [b - a for a, b in zip(before, after)]


def prepare(db, name, more=""):
    db.run(f"create table {name} (tenant int, id int, content text, primary key (tenant, id))")
    db.run(f"select create_distributed_table('{name}', 'tenant', shard_count => 8{more})")
    db.run(f"select enable_semantic_search('{name}')")


def in_a_session_of_its_own(nodes, *statements):
    """A session that has ended has reported its counts."""
    with nodes.coordinator.connect() as connection:
        for statement in statements:
            connection.execute(statement)


def fill(nodes, name, rows):
    in_a_session_of_its_own(nodes, f"insert into {name} select i, i, 'Row ' || i from generate_series(1, {rows}) i")
    # The workers' sessions stay open for later statements, and report what they counted.
    time.sleep(1.2)
    for worker in nodes.workers:
        worker.value("select count(*) from pg_stat_activity")
    in_a_session_of_its_own(nodes, f"select count(*) from {name}")


def test_the_trigger_runs_on_the_workers_once_a_row(nodes, db):
    prepare(db, "runs_insert")
    coordinator, *workers = counted(nodes, lambda: in_a_session_of_its_own(
        nodes, "insert into runs_insert select i, i, 'Row ' || i from generate_series(1, 60) i"))
    assert coordinator == 0
    assert sum(workers) == 60 and all(workers)


def test_a_search_runs_the_model_once_in_all(nodes, db):
    prepare(db, "runs_search")
    fill(nodes, "runs_search", 60)
    for statement in ["select * from query_runs_search('row seven', 0.1, 5)",
                      "select * from query_runs_search('row eight', 0.1)",
                      "select * from search_runs_search('row nine', 5)",
                      "select * from hybrid_runs_search('row ten', 5)"]:
        coordinator, *workers = counted(nodes, lambda statement=statement: in_a_session_of_its_own(nodes, statement))
        assert (coordinator, workers) == (1, [0, 0]), statement


def test_an_order_by_of_ones_own_runs_the_model_as_the_page_says(nodes, db):
    prepare(db, "runs_order")
    fill(nodes, "runs_order", 60)
    worker_of_7 = db.value("select nodeport from citus_shards where shardid = get_shard_id_for_distribution_column('runs_order', 7)")
    at_7 = [int(worker.port == worker_of_7) for worker in nodes.workers]
    shards = [db.value("select count(*) from citus_shards where table_name = 'runs_order'::regclass and nodeport = %s", worker.port)
              for worker in nodes.workers]
    assert sum(shards) == 8
    for statement, expected in [
            ("select id from runs_order order by embedding <#> embed('row seven') limit 10", [1, 0, 0]),
            ("select id from runs_order where tenant = 7 order by embedding <#> embed('row eight') limit 10", [1, *at_7]),
            ("select id from runs_order order by embedding <#> (select embed('row nine')) limit 10", [1, *shards])]:
        got = counted(nodes, lambda statement=statement: in_a_session_of_its_own(nodes, statement))
        assert got == expected, statement


def test_a_move_computes_a_generated_column_again(nodes, db):
    db.run("create table runs_generated (tenant int, id int, content text, "
           "embedding vector(384) generated always as (embed(content)) stored, primary key (tenant, id))")
    db.run("select create_distributed_table('runs_generated', 'tenant', shard_count => 2, colocate_with => 'none')")
    in_a_session_of_its_own(nodes, "insert into runs_generated (tenant, id, content) select i, i, 'Row ' || i from generate_series(1, 30) i")
    shard, name, port = db.rows("select shardid, nodename, nodeport from citus_shards where table_name = 'runs_generated'::regclass limit 1")[0]
    rows = db.value("select count(*) from generate_series(1, 30) i where get_shard_id_for_distribution_column('runs_generated', i) = %s", shard)
    assert 0 < rows < 30
    other = next(worker.port for worker in nodes.workers if worker.port != port)
    got = counted(nodes, lambda: db.run("select citus_move_shard_placement(%s, %s, %s, %s, %s, 'block_writes')", shard, name, port, name, other))
    assert got == [0, *(rows if worker.port == other else 0 for worker in nodes.workers)]


@pytest.fixture
def newcomer(nodes, db):
    """A server that is no worker yet."""
    node = citus_nodes.Node(len(nodes.all), nodes.described)
    try:
        node.setup()
        yield node
    finally:
        db.run("drop table if exists runs_newcomer cascade")
        db.run("select citus_remove_node(nodename, nodeport) from pg_dist_node where nodeport = %s", node.port)
        node.cluster.destroy()


def test_a_worker_that_joins_later_gets_all_of_it_and_shards_without_a_run(nodes, db, newcomer):
    prepare(db, "runs_newcomer", ", colocate_with => 'none'")
    fill(nodes, "runs_newcomer", 60)
    best = db.column("select id from search_runs_newcomer('row seven', 5)")
    all_nodes = [*nodes.all, newcomer]

    def join():
        db.run("select citus_add_node('127.0.0.1', %s)", newcomer.port)
        # As citus_rebalance_start() does first.
        db.run("select replicate_reference_tables('block_writes')")
        for shard, port in db.rows("select shardid, nodeport from citus_shards where table_name = 'runs_newcomer'::regclass order by 1 limit 3"):
            db.run("select citus_move_shard_placement(%s, '127.0.0.1', %s, '127.0.0.1', %s, 'block_writes')", shard, port, newcomer.port)
    assert counted(nodes, join, all_nodes) == [0, 0, 0, 0]
    assert newcomer.value("select fingerprint from embed_model()") == nodes.coordinator.value("select fingerprint from embed_model()")
    # Asked itself, it answers, and its shards embed and are searched.
    assert [row[0] for row in rows_of(newcomer, "select id from search_runs_newcomer('row seven', 5)")] == best
    *others, runs = counted(nodes, lambda: in_a_session_of_its_own(
        nodes, "insert into runs_newcomer select i, i, 'Row ' || i from generate_series(61, 120) i"), all_nodes)
    there = db.value("select count(*) from generate_series(61, 120) i where get_shard_id_for_distribution_column('runs_newcomer', i) = any ("
                     "select shardid from citus_shards where table_name = 'runs_newcomer'::regclass and nodeport = %s)", newcomer.port)
    assert runs == there > 0 and sum(others) == 60 - there
    assert db.value("select count(embedding) from runs_newcomer") == 120


def rows_of(node, statement):
    with node.connect() as connection:
        return connection.execute(statement).fetchall()


def test_the_index_of_each_shard_is_used(db):
    prepare(db, "runs_index")
    db.run("insert into runs_index select i, i, 'Row ' || i from generate_series(1, 2000) i")
    db.run("analyze runs_index")
    db.run("set citus.explain_all_tasks = on")
    db.run("set citus.propagate_set_commands = 'local'")
    db.run("begin")
    db.run("set local enable_seqscan = off")
    plan = "\n".join(db.column("explain select e, gte_small.exact_distance(e.embedding, embed('row')) from runs_index e "
                               "where e.embedding is not null order by gte_small.distance(e.embedding, embed('row')) limit 5"))
    assert plan.count("Index Scan using runs_index_embedding_idx") == 8


def test_a_move_keeps_trigger_index_and_vectors(nodes, db):
    prepare(db, "runs_move")
    fill(nodes, "runs_move", 60)
    best = db.column("select id from search_runs_move('row seven', 5)")

    def move():
        for shard, name, port in db.rows(
                "select shardid, nodename, nodeport from citus_shards where table_name = 'runs_move'::regclass order by 1 limit 3"):
            other = next(worker.port for worker in nodes.workers if worker.port != port)
            db.run("select citus_move_shard_placement(%s, %s, %s, %s, %s, 'block_writes')", shard, name, port, name, other)
    assert counted(nodes, move) == [0, 0, 0]
    assert db.value("select count(embedding) from runs_move") == 60
    assert db.column("select id from search_runs_move('row seven', 5)") == best
    db.run("insert into runs_move select i, i, 'Row ' || i from generate_series(61, 120) i")
    assert db.value("select count(embedding) from runs_move") == 120


def test_a_search_of_documents_runs_the_model_once(nodes, db):
    db.run("create table runs_docs (tenant int, id int, body text, primary key (tenant, id))")
    db.run("select create_distributed_table('runs_docs', 'tenant', shard_count => 4)")
    db.run("select enable_document_search('runs_docs', 'body')")
    coordinator, *workers = counted(nodes, lambda: in_a_session_of_its_own(
        nodes, "insert into runs_docs select i, i, 'Row ' || i from generate_series(1, 60) i"))
    # One chunk each.
    assert coordinator == 0 and sum(workers) == 60 and all(workers)
    coordinator, *workers = counted(nodes, lambda: in_a_session_of_its_own(nodes, "select * from query_runs_docs('row seven', 0.1, 5)"))
    assert (coordinator, workers) == (1, [0, 0])


def test_rows_of_a_reference_table_are_embedded_on_every_node(nodes, db):
    db.run("create table runs_reference (id int primary key, content text)")
    db.run("select create_reference_table('runs_reference')")
    db.run("select enable_semantic_search('runs_reference')")
    assert counted(nodes, lambda: in_a_session_of_its_own(
        nodes, "insert into runs_reference select i, 'Row ' || i from generate_series(1, 20) i")) == [20, 20, 20]
