"""embed_backfill on distributed tables walks the shards; nothing is noted that was not done."""

import re
import threading
import time

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


def placed(db, name):
    """The server of each shard, by the shard's name."""
    return dict(db.rows("select shard_name, format('%%s:%%s', nodename, nodeport) from citus_shards where table_name = %s::regclass", name))


@pytest.mark.parametrize("force", [False, True])
def test_an_error_names_its_shard_and_server_and_the_others_are_done(db, force):
    name = f"fill_error_{force}".lower()
    prepare(db, name)
    db.run(f"alter table {name} add constraint short check (id <> 21) not valid")
    shard = db.value("select shard_name(%s::regclass, get_shard_id_for_distribution_column(%s, 5))", name, name)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as failed:
        db.run("call embed_backfill(%s, force => %s)", name, force)
    said = failed.value.diag
    assert re.match(rf"shard public\.{shard} on {placed(db, name)[shard]}: .*could not be embedded: \(tenant, id\)=\(5, 21\)", said.message_primary)
    assert said.message_detail.startswith(f"1 shards of public.{name} were left out")
    # Only that row is without an embedding.
    assert db.column(f"select id from {name} where embedding is null") == [21]


def test_a_turn_has_at_most_four_shards_of_each_worker(db, nodes):
    db.run("create table fill_turn (tenant int, id int, content text, primary key (tenant, id))")
    db.run("select create_distributed_table('fill_turn', 'tenant', shard_count => 20, colocate_with => 'none')")
    ports = dict(db.rows("select shardid, nodeport from citus_shards where table_name = 'fill_turn'::regclass"))

    def of_workers(shards):
        return sorted([ports[shard] for shard in shards].count(worker.port) for worker in nodes.workers)

    waiting = db.value("select gte_small.shards('fill_turn')")
    assert of_workers(waiting) == [10, 10]
    assert of_workers(db.value("select gte_small.shards_of_a_turn(%s)", waiting)) == [4, 4]
    # One worker has one shard left, the other all of its shards.
    one, other = (worker.port for worker in nodes.workers)
    uneven = [shard for shard in waiting if ports[shard] == one] + [shard for shard in waiting if ports[shard] == other][:1]
    turn = db.value("select gte_small.shards_of_a_turn(%s)", uneven)
    assert of_workers(turn) == [1, 4]
    left = db.value("select gte_small.shards_left(%s, %s)", uneven, turn)
    assert sorted(left + turn) == sorted(uneven) and of_workers(left) == [0, 6]


def test_all_shards_of_several_turns_are_filled(db):
    prepare(db, "fill_turns", distribute="create_distributed_table('{0}', 'tenant', shard_count => 20, colocate_with => 'none')")
    db.run("update fill_turns set content = 'Another row'")
    db.run("call embed_backfill('fill_turns', force => true)")
    assert any(re.fullmatch(r"public\.fill_turns\.embedding: 50 rows embedded in [\d.]+ s \([\d.]+ rows/s\)", text) for _, text, _ in db.notices)
    assert db.rows("select checked, wrong from embed_verify('fill_turns', null)") == [(50, 0)]


class Watch:
    """The application_names of a session, as another session sees them during the block."""

    def __init__(self, nodes, pid):
        self.connection, self.pid = nodes.coordinator.connect(), pid
        self.seen, self.ended = [], threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.ended.is_set():
            [name] = self.connection.execute("select application_name from pg_stat_activity where pid = %s", [self.pid]).fetchone()
            if name not in self.seen:
                self.seen.append(name)
            time.sleep(0.02)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        self.connection.close()


def test_the_progress_is_seen(db, nodes):
    prepare(db, "fill_progress", rows=0, distribute="create_distributed_table('{0}', 'tenant', shard_count => 2, colocate_with => 'none')")
    # Ten rows for each of the two shards, each of which takes a second. A turn lasts three.
    one, other = db.column("select min(i) from generate_series(1, 50) i group by get_shard_id_for_distribution_column('fill_progress', i)")
    deferred(db, f"insert into fill_progress select t, i, 'Row ' || i from generate_series(1, 10) i, unnest(array[{one}, {other}]) t")
    db.run("alter table fill_progress add constraint slow check (pg_catalog.pg_sleep(1.1)::text is not null) not valid")
    db.run("set application_name = 'mine'")
    with Watch(nodes, db.connection.info.backend_pid) as watch:
        db.run("call embed_backfill('fill_progress', 1)")
    assert db.value("show application_name") == "mine"
    told = [name for name in watch.seen if name.startswith("gte-small")]
    assert told[0] == "gte-small: fill_progress 0/20"
    counts = [int(re.fullmatch(r"gte-small: fill_progress (\d+)/20 [\d.]+ rows/s \d+ s left", name)[1]) for name in told[1:]]
    assert counts == sorted(counts) and len(set(counts)) > 2 and counts[-1] == 20
    [notice] = [text for _, text, _ in db.notices if "of about" in text]
    assert re.fullmatch(r"public\.fill_progress\.embedding: \d+ of about 20 rows, [\d.]+ rows/s, \d+ s left, [12] of 2 shards to go", notice)
    assert state(db, "fill_progress") == (0, "current")


def test_the_progress_of_a_forced_backfill_counts_the_shards_that_are_done(db, nodes):
    # Five shards on each worker: two turns.
    prepare(db, "fill_forced", rows=0, distribute="create_distributed_table('{0}', 'tenant', shard_count => 10, colocate_with => 'none')")
    db.run("insert into fill_forced select i, i, 'Row ' || i from generate_series(1, 200) i")
    first = db.value("select gte_small.shards_of_a_turn(gte_small.shards('fill_forced'))")
    done = db.value("select count(*) from generate_series(1, 200) i where get_shard_id_for_distribution_column('fill_forced', i) = any (%s)", first)
    with Watch(nodes, db.connection.info.backend_pid) as watch:
        db.run("call embed_backfill('fill_forced', force => true)")
    told = [re.match(r"gte-small: fill_forced (\d+/\d+)", name) for name in watch.seen]
    assert [name[1] for name in told if name] == ["0/200", f"{done}/200"]


def test_a_reference_table_counts_each_copy(db):
    prepare(db, "fill_copies", distribute="create_reference_table('{0}')")
    for force in (False, True):
        db.notices.clear()
        db.run("call embed_backfill('fill_copies', force => %s)", force)
        assert any(text.startswith("public.fill_copies.embedding: 150 rows embedded in") for _, text, _ in db.notices), db.notices
