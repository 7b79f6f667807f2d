"""embed_backfill on distributed tables walks the shards; nothing is noted that was not done."""

import psycopg
import pytest


def prepare(db, name, rows=50, distribute="create_distributed_table('{0}', 'tenant', shard_count => 4)"):
    db.run(f"create table {name} (tenant int, id int, content text, primary key (tenant, id))")
    db.run("select " + distribute.format(name))
    db.run(f"select enable_semantic_search('{name}')")
    deferred(db, f"insert into {name} select i % 8, i, 'Row ' || i from generate_series(1, {rows}) i")


def deferred(db, statement):
    db.run("set citus.propagate_set_commands = 'local'")
    db.run("begin")
    db.run("set local gte_small.defer = on")
    db.run(statement)
    db.run("commit")


def state(db, name):
    return db.rows("select missing, state from embedding_status(%s)", name)[0]


def test_missing_rows_are_embedded_on_their_shards(owner):
    prepare(owner, "fill_missing")
    assert owner.value("select count(embedding) from fill_missing") == 0
    owner.run("call embed_backfill('fill_missing', 10)")
    assert state(owner, "fill_missing") == (0, "current")
    assert owner.value("select count(*) from embed_verify('fill_missing', null) where wrong = 0 and checked = 50") == 1


def test_all_copies_of_a_reference_table_are_filled(db, nodes):
    prepare(db, "fill_reference", distribute="create_reference_table('{0}')")
    db.run("call embed_backfill('fill_reference')")
    assert state(db, "fill_reference") == (0, "current")
    vectors = {node.value("select md5(string_agg(embedding::text, ',' order by id)) from fill_reference") for node in nodes.all}
    assert len(vectors) == 1


def test_force_replaces_every_vector(owner):
    prepare(owner, "fill_force")
    owner.run("call embed_backfill('fill_force')")
    # Vectors of another text, behind the trigger's back.
    owner.run("set citus.propagate_set_commands = 'local'")
    owner.run("begin")
    owner.run("set local gte_small.own_vectors = on")
    owner.run("update fill_force set embedding = embed('something else')")
    owner.run("commit")
    assert owner.value("select wrong from embed_verify('fill_force', null)") == 50
    owner.run("call embed_backfill('fill_force', force => true)")
    assert owner.value("select wrong from embed_verify('fill_force', null)") == 0
    assert state(owner, "fill_force") == (0, "current")


def test_a_row_that_is_locked_keeps_the_column_from_being_current(owner, nodes):
    prepare(owner, "fill_locked", rows=10)
    owner.run("call embed_backfill('fill_locked')")
    with nodes.coordinator.connect(user="citus_owner") as other:
        other.execute("begin")
        other.execute("select * from fill_locked where tenant = 3 and id = 3 for update")
        owner.run("call embed_backfill('fill_locked', force => true)")
        assert any(severity == "WARNING" and "former" in text for severity, text, _ in owner.notices)
        assert state(owner, "fill_locked")[1] == "re-embedding"
        other.execute("rollback")
    owner.run("call embed_backfill('fill_locked', force => true)")
    assert state(owner, "fill_locked") == (0, "current")


def test_a_step_embeds_until_it_returns_zero(owner):
    prepare(owner, "fill_step", rows=120)
    embedded = []
    while not embedded or embedded[-1]:
        embedded.append(owner.value("select embed_backfill_step('fill_step', 10)"))
    assert sum(embedded) == 120 and state(owner, "fill_step") == (0, "current")


@pytest.mark.parametrize("force", [False, True])
def test_nodes_with_different_models_are_refused(db, nodes, force):
    prepare(db, f"fill_models_{force}".lower())
    name = f"fill_models_{force}".lower()
    worker = nodes.workers[0]
    with worker.connect() as connection:
        connection.execute("alter system set gte_small.model_path = '/nowhere'")
        connection.execute("select pg_reload_conf()")
    try:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="do not have one model"):
            db.run("call embed_backfill(%s, force => %s)", name, force)
        assert "do not have one model" in db.value("select hints[1] from embedding_status(%s)", name)
    finally:
        with worker.connect() as connection:
            connection.execute("alter system reset gte_small.model_path")
            connection.execute("select pg_reload_conf()")
    assert db.value(f"select count(embedding) from {name}") == 0
    db.run("call embed_backfill(%s, force => %s)", name, force)
    db.run("call embed_backfill(%s)", name)
    assert state(db, name) == (0, "current")


def test_a_shard_is_refused_by_a_session_that_does_not_see_it(db, nodes):
    prepare(db, "fill_shard")
    shard, port = db.rows("select shard_name, nodeport from citus_shards where table_name = 'fill_shard'::regclass limit 1")[0]
    worker = next(worker for worker in nodes.workers if worker.port == port)
    for force in (False, True):
        with worker.connect() as connection, pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is a shard") as refused:
            connection.execute("call embed_backfill(%s, force => %s)", [shard, force])
        assert "coordinator" in refused.value.diag.message_hint


def test_an_error_names_the_shard_and_the_others_are_done(db, nodes):
    prepare(db, "fill_error")
    db.run("alter table fill_error add constraint short check (length(content) < 6) not valid")
    with pytest.raises(psycopg.Error, match="shard .*fill_error_"):
        db.run("call embed_backfill('fill_error')")
    # 'Row 1' to 'Row 9' are short enough.
    assert db.value("select count(embedding) from fill_error") == 9
