"""The statements of docs/scaling.md about Citus, as they stand there."""

import pathlib

import pytest

import docs_page
from test_runs_on_citus import counted, in_a_session_of_its_own

SCALING = pathlib.Path(__file__).resolve().parents[2] / "docs" / "scaling.md"


def psql(node, sql, *options):
    """As a user runs it: statement by statement."""
    return node.cluster.psql(sql, dbname="demo", args=options).stdout.strip()


@pytest.fixture
def docs(nodes, db):
    """The table of the page, by the page's statements."""
    sql = docs_page.statements(SCALING, "Citus", "create_distributed_table")
    create = 'create extension "gte-small" cascade;\n'
    assert sql.startswith(create)
    psql(nodes.coordinator, "set client_min_messages = error;" + sql[len(create):])
    try:
        yield db
    finally:
        db.run("drop function if exists search_of")
        db.run("select disable_semantic_search('docs')")
        db.run("drop table docs")


def test_a_search_of_one_tenant_runs_on_its_worker_as_a_whole(nodes, docs):
    docs.run("insert into docs values (7, 1, 'Invoices are due within thirty days.'), (7, 2, 'The office dog is called Ada.'), "
             "(8, 3, 'When to pay: at once.')")
    psql(nodes.coordinator, docs_page.statements(SCALING, "How many shards", "create_distributed_function"))
    search = "select id, content from search_of(7, 'when do I have to pay?')"
    assert docs.rows(search) == [(1, "Invoices are due within thirty days."), (2, "The office dog is called Ada.")]
    port = docs.value("select nodeport from citus_shards where shardid = get_shard_id_for_distribution_column('docs', 7)")
    coordinator, *workers = counted(nodes, lambda: in_a_session_of_its_own(nodes, search.replace("pay", "settle an invoice")))
    assert (coordinator, workers) == (0, [int(worker.port == port) for worker in nodes.workers])


def test_the_query_that_compares_the_models_tells_a_node_with_another(nodes):
    query = docs_page.statements(SCALING, "Settings and the model", "count(distinct f)")
    assert psql(nodes.coordinator, query, "-At") == "1"
    with nodes.workers[1].connect() as connection:
        connection.execute("alter system set gte_small.model_path = '/nowhere'")
        connection.execute("select pg_reload_conf()")
    try:
        assert psql(nodes.coordinator, query, "-At") == "2"
    finally:
        with nodes.workers[1].connect() as connection:
            connection.execute("alter system reset gte_small.model_path")
            connection.execute("select pg_reload_conf()")
    assert psql(nodes.coordinator, query, "-At") == "1"


def test_a_table_that_is_distributed_later(nodes, db):
    db.run("create table docs (tenant int, id bigint, content text, primary key (tenant, id))")
    try:
        db.run("select enable_semantic_search('docs')")
        db.run("insert into docs values (7, 1, 'Invoices are due within thirty days.')")
        psql(nodes.coordinator, docs_page.statements(SCALING, "Distributed later"))
        assert db.rows("select tenant, id from search_docs('when do I have to pay?', 5)") == [(7, 1)]
        with nodes.workers[0].connect() as connection:
            assert connection.execute("select tenant, id from search_docs('when do I have to pay?', 5)").fetchall() == [(7, 1)]
    finally:
        db.run("select disable_semantic_search('docs')")
        db.run("drop table docs")
