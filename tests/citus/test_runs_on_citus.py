"""Where the model runs: once for a search, on the worker for a row, never for a move."""

import time

COUNT = ("select coalesce(sum(calls), 0)::int from pg_stat_user_functions "
         "where funcname in ('embed', 'embed_query', 'embed_trigger')")


def counted(nodes, action):
    """The calls of the model's functions on coordinator and workers during `action`."""
    def settle():
        # Sessions report their counts at most once a second, and when they end.
        time.sleep(1.2)
        return [node.value("select pg_stat_force_next_flush() is not null") and node.value(COUNT) for node in nodes.all]
    before = settle()
    action()
    after = settle()
    return [b - a for a, b in zip(before, after)]


def prepare(db, name):
    db.run(f"create table {name} (tenant int, id int, content text, primary key (tenant, id))")
    db.run(f"select create_distributed_table('{name}', 'tenant', shard_count => 8)")
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
