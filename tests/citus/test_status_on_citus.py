"""embedding_status of a distributed table tells what the shards know."""


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
