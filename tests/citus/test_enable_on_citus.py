"""enable_semantic_search on tables that Citus distributes: one call, no setting, and the search functions work."""

import psycopg
import pytest

ROWS = "insert into {} select i % 8, i, 'Sentence number ' || i from generate_series(1, 40) i"
INVOICE = "insert into {} values (3, 100, 'Invoices are due within thirty days.')"
QUESTION = "when do I have to pay?"


def make(db, name, distribute):
    db.run(f"create table {name} (tenant int, id int, content text, primary key (tenant, id))")
    if distribute:
        db.run(distribute)


def fill(db, name):
    db.run(ROWS.format(name))
    db.run(INVOICE.format(name))


def check_searches(db, name):
    """All forms find the invoice first, and give as many rows as were asked for."""
    schema, _, table = name.rpartition(".")
    where = f"{schema}." if schema else ""
    assert db.column(f"select id from {where}query_{table}(%s, 0.3, 5)", QUESTION) == [100]
    assert db.column(f"select id from {where}query_{table}(%s, 0.3)", QUESTION) == [100]
    assert db.column(f"select id from {where}query_{table}(embed(%s), 0.3, 5)", QUESTION) == [100]
    assert db.column(f"select id from {where}query_{table}(embed(%s), 0.3) limit 3", QUESTION) == [100]
    found = db.rows(f"select id, similarity from {where}search_{table}(%s, 7)", QUESTION)
    assert len(found) == 7 and found[0][0] == 100 and [s for _, s in found] == sorted((s for _, s in found), reverse=True)
    hybrid = db.rows(f"select (item).id, full_text_rank, semantic_rank from {where}hybrid_{table}('thirty invoices', 7)")
    assert len(hybrid) == 7 and hybrid[0] == (100, 1, 1)
    assert db.value(f"select count(*) from {where}search_{table}('sentence', 100, filter => '{{\"tenant\": 3}}')") == 6


KINDS = {
    "distributed": "select create_distributed_table('on_distributed', 'tenant', shard_count => 4)",
    "reference": "select create_reference_table('on_reference')",
    "local_in_metadata": "select citus_add_local_table_to_metadata('on_local_in_metadata')",
}


@pytest.mark.parametrize("kind", KINDS)
def test_enabled_after_distribution_with_one_call(owner, kind):
    name = f"on_{kind}"
    make(owner, name, KINDS[kind])
    before = owner.value("select current_setting('citus.enable_unsafe_triggers') || current_setting('citus.multi_shard_modify_mode')")
    owner.run("select enable_semantic_search(%s)", name)
    assert owner.value("select current_setting('citus.enable_unsafe_triggers') || current_setting('citus.multi_shard_modify_mode')") == before
    fill(owner, name)
    check_searches(owner, name)
    assert owner.rows("select missing, state, hints from embedding_status(%s)", name) == [(0, "current", [])]


def test_a_partitioned_table_that_is_distributed(owner):
    owner.run("create table on_parts (tenant int, id int, content text, primary key (tenant, id)) partition by range (id)")
    owner.run("create table on_parts_1 partition of on_parts for values from (0) to (20)")
    owner.run("create table on_parts_2 partition of on_parts for values from (20) to (1000)")
    owner.run("select create_distributed_table('on_parts', 'tenant', shard_count => 4)")
    owner.run("select enable_semantic_search('on_parts')")
    fill(owner, "on_parts")
    check_searches(owner, "on_parts")
    owner.run("call embed_backfill('on_parts', force => true)")
    assert owner.rows("select missing, state, hints from embedding_status('on_parts')") == [(0, "current", [])]


def test_a_table_of_a_distributed_schema(db):
    db.run("create schema on_schema")
    db.run("select citus_schema_distribute('on_schema')")
    make(db, "on_schema.notes", None)
    db.run("select enable_semantic_search('on_schema.notes')")
    fill(db, "on_schema.notes")
    check_searches(db, "on_schema.notes")


def test_enabled_before_distribution_asks_for_one_setting_by_name(owner):
    make(owner, "on_before", None)
    owner.run("insert into on_before values (1, 200, 'Backups run every night at two.')")
    owner.run("select enable_semantic_search('on_before')")
    assert not [text for severity, text, _ in owner.notices if severity == "WARNING"]
    assert any("citus.enable_unsafe_triggers" in hint for _, _, hint in owner.notices)
    owner.run("call embed_backfill('on_before')")
    owner.run("set citus.enable_unsafe_triggers = on")
    owner.run("select create_distributed_table('on_before', 'tenant', shard_count => 4)")
    owner.run("reset citus.enable_unsafe_triggers")
    assert owner.column("select id from search_on_before('when are backups made?', 1)") == [200]
    fill(owner, "on_before")
    check_searches(owner, "on_before")


def test_enabled_again_changes_nothing_and_disabled_leaves_nothing(owner, nodes):
    make(owner, "on_again", "select create_distributed_table('on_again', 'tenant', shard_count => 4)")
    owner.run("select enable_semantic_search('on_again')")
    fill(owner, "on_again")
    owner.notices.clear()
    owner.run("select enable_semantic_search('on_again')")
    assert not [text for _, text, _ in owner.notices if "made" in text]
    check_searches(owner, "on_again")
    owner.run("select disable_semantic_search('on_again')")
    for node in nodes.all:
        assert node.value("select count(*) from pg_trigger t join pg_class c on c.oid = t.tgrelid "
                          "where c.relname like 'on_again%' and t.tgname like 'zzz%'") == 0
        assert node.value("select count(*) from pg_proc where proname like '%on_again%'") == 0
        assert node.value("select count(*) from pg_class where relname like 'on_again%_idx%'") == 0
    assert owner.value("select count(embedding) from on_again") == 41


def test_searches_run_from_a_worker(owner, nodes):
    make(owner, "on_worker", "select create_distributed_table('on_worker', 'tenant', shard_count => 4)")
    owner.run("select enable_semantic_search('on_worker')")
    fill(owner, "on_worker")
    for worker in nodes.workers:
        with worker.connect(user="citus_owner") as connection:
            assert connection.execute("select id from query_on_worker(%s, 0.3, 2)", [QUESTION]).fetchall() == [(100,)]
            assert connection.execute("select id from search_on_worker(%s, 3)", [QUESTION]).fetchall()[0] == (100,)


def test_odd_names(db):
    db.run("""create schema "on %s" """)
    db.run("""create table "on %s"."docs ' %I" (id int primary key, "text %L" text)""")
    db.run("""select create_distributed_table('"on %s"."docs '' %I"', 'id', shard_count => 4)""")
    db.run("""select enable_semantic_search('"on %s"."docs '' %I"', '{text %L}', 'vec %s')""")
    db.run("set citus.propagate_set_commands = 'local'")
    db.run("begin")
    db.run("set local gte_small.defer = on")
    db.run("""insert into "on %s"."docs ' %I" values (1, 'Invoices are due within thirty days.')""")
    db.run("commit")
    db.run("""call embed_backfill('"on %s"."docs '' %I"')""")
    db.run("""call embed_backfill('"on %s"."docs '' %I"', force => true)""")
    assert db.rows("""select state, hints from embedding_status('"on %s"."docs '' %I"')""") == [("current", [])]
    assert db.value("""select checked from embed_verify('"on %s"."docs '' %I"', null)""") == 1
    assert db.column("""select id from "on %s"."search_docs ' %I"('when do I have to pay?', 3)""") == [1]
    assert db.column("""select (item).id from "on %s"."hybrid_docs ' %I"('thirty', 3)""") == [1]
    db.run("""select disable_semantic_search('"on %s"."docs '' %I"', 'vec %s')""")


@pytest.mark.parametrize("distribute", [None, "select create_distributed_table('on_letters', 'id', shard_count => 4)"])
def test_columns_named_like_variables(db, distribute):
    db.run("drop table if exists on_letters cascade")
    db.run("create table on_letters (id int primary key, content text, e text, v text, bound text, d float8, hit int)")
    if distribute:
        db.run(distribute)
    db.run("select enable_semantic_search('on_letters')")
    db.run("insert into on_letters (id, content, e) values (1, 'Invoices are due within thirty days.', 'ee')")
    for statement in ("query_on_letters('invoices', 0.1)", "query_on_letters('invoices', 0.1, 3)", "search_on_letters('invoices', 3)"):
        assert db.rows(f"select id, e from {statement}") == [(1, "ee")], statement
    assert db.rows("select (item).id, (item).e from hybrid_on_letters('invoices', 3)") == [(1, "ee")]


def test_hybrid_without_a_primary_key_says_what_to_do(db):
    db.run("create table on_keyless (tenant int, id int, content text)")
    db.run("select create_distributed_table('on_keyless', 'tenant', shard_count => 4)")
    db.run("select enable_semantic_search('on_keyless')")
    fill(db, "on_keyless")
    assert db.column("select id from search_on_keyless(%s, 1)", QUESTION) == [100]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has no primary key"):
        db.run("select * from hybrid_on_keyless('thirty', 1)")
