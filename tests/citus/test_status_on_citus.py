"""embedding_status of a distributed table tells what the shards know."""

import psycopg
import pytest


def prepare(db, name):
    db.run(f"create table {name} (tenant int, id int, content text, primary key (tenant, id))")
    db.run(f"select create_distributed_table('{name}', 'tenant', shard_count => 4, colocate_with => 'none')")
    db.run(f"select enable_semantic_search('{name}')")
    db.run(f"insert into {name} select i % 8, i, 'Row ' || i from generate_series(1, 40) i")


def state(db, name):
    return db.value("select state from embedding_status(%s)", name)


def test_a_vector_that_comes_along_makes_the_column_unknown_until_it_is_verified(db):
    prepare(db, "state_foreign")
    assert state(db, "state_foreign") == "current"
    db.run("insert into state_foreign select 3, 1000, 'A row with a vector.', embed('A row with a vector.')::text::vector")
    db.run("insert into state_foreign select 4, 1001, 'Another one.', (select embedding from state_foreign where id = 1000)")
    assert state(db, "state_foreign") == "unknown"
    assert db.value("select wrong from embed_verify('state_foreign', null)") == 1
    assert state(db, "state_foreign") == "unknown"
    db.run("delete from state_foreign where id = 1001")
    assert db.value("select wrong from embed_verify('state_foreign', null)") == 0
    assert state(db, "state_foreign") == "current"


def test_a_shard_that_moved_is_unknown_until_it_is_verified(db, nodes):
    prepare(db, "state_moved")
    shard, name, port = db.rows("select shardid, nodename, nodeport from citus_shards where table_name = 'state_moved'::regclass order by 1 limit 1")[0]
    other = next(worker.port for worker in nodes.workers if worker.port != port)
    db.run("select citus_move_shard_placement(%s, %s, %s, %s, %s, 'block_writes')", shard, name, port, name, other)
    assert state(db, "state_moved") == "unknown"
    assert db.value("select wrong from embed_verify('state_moved', null)") == 0
    assert state(db, "state_moved") == "current"


def test_a_wrong_vector_that_is_found_makes_the_column_unknown(db):
    prepare(db, "state_wrong")
    db.run("set citus.propagate_set_commands = 'local'")
    db.run("begin")
    db.run("set local gte_small.own_vectors = on")
    db.run("update state_wrong set embedding = embed('something else') where id = 3")
    db.run("commit")
    assert db.value("select wrong from embed_verify('state_wrong', null)") == 1
    assert state(db, "state_wrong") == "unknown"


def test_a_renamed_column_is_said_with_the_statement_that_mends_it(db):
    prepare(db, "state_renamed")
    db.run("alter table state_renamed rename column content to body")
    told, hints = db.rows("select state, hints from embedding_status('state_renamed')")[0]
    assert told == "broken"
    db.run(next(hint for hint in hints if "enable_semantic_search" in hint).partition(": ")[2].replace("'{content}'", "'{body}'"))
    db.run("insert into state_renamed values (1, 900, 'A new row.')")
    assert db.value("select embedding is not null from state_renamed where id = 900")


def test_a_transaction_that_changed_something_does_not_wait_for_itself(db):
    prepare(db, "state_busy")
    for statement in ("select embed_backfill_step('state_busy')", "select * from embed_verify('state_busy')"):
        db.run("begin")
        db.run("alter table state_busy add column if not exists more int")
        with pytest.raises(psycopg.errors.ActiveSqlTransaction):
            db.run(statement)
        db.run("rollback")


def test_the_examples_of_verify_can_be_found(db, nodes):
    prepare(db, "state_examples")
    db.run("insert into state_examples select 4, 1001, 'Another one.', embedding from state_examples where id = 7")
    example = db.value("select examples[1] from embed_verify('state_examples', null)")
    assert "state_examples_" in example and "127.0.0.1" in example


def test_a_table_that_is_distributed_anew_is_mended_by_enabling_again(db):
    prepare(db, "state_altered")
    best = db.column("select id from search_state_altered('row seven', 5)")
    db.run("set citus.enable_unsafe_triggers = on")
    db.run("select alter_distributed_table('state_altered', shard_count => 6)")
    db.run("reset citus.enable_unsafe_triggers")
    db.run("select enable_semantic_search('state_altered')")
    assert db.column("select id from search_state_altered('row seven', 5)") == best
    db.run("select embed_verify('state_altered', null)")
    assert state(db, "state_altered") == "current"


def test_a_table_that_is_local_again_is_mended_by_enabling_again(db):
    prepare(db, "state_local")
    best = db.column("select id from search_state_local('row seven', 5)")
    db.run("set citus.enable_unsafe_triggers = on")
    db.run("select undistribute_table('state_local')")
    db.run("reset citus.enable_unsafe_triggers")
    db.run("select enable_semantic_search('state_local')")
    assert db.column("select id from search_state_local('row seven', 5)") == best
    db.run("insert into state_local values (1, 500, 'A new row.')")
    assert db.value("select count(*) from state_local where embedding is null") == 0
    db.run("select embed_verify('state_local', null)")
    assert state(db, "state_local") == "current"
