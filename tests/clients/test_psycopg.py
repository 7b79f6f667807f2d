"""psycopg 3 with pgvector's types: examples/psycopg, and what surprises."""

import psycopg
import pytest
from pgvector import Vector
from pgvector.psycopg import register_vector

LINES = [
    "0.41  Invoices are due within thirty days.",
    "0.12  Backups run every night at two.",
    "384 dimensions; next to: Backups run every night at two.",
    "      The canteen serves lunch from noon to two.",
    "2 vectors of two texts",
]


def test_the_example_prints_the_same_each_time(run, database, printed):
    printed(run("psycopg", DATABASE_URL=database.uri), LINES)
    printed(run("psycopg", DATABASE_URL=database.uri), LINES)


def test_the_example_runs_where_the_file_of_the_demos_page_was_imported(run, database, printed):
    """`make import FILE=notes.csv` of docs/demo.md makes a table whose body is not unique."""
    with database.connect() as connection:
        connection.execute("create table notes (id bigint generated always as identity primary key, file_id text, body text)")
        connection.execute("select enable_semantic_search('notes', 'body')")
    printed(run("psycopg", DATABASE_URL=database.uri), LINES)


@pytest.fixture
def connection(crowd):
    with crowd.connect() as connection:
        register_vector(connection)
        yield connection


def found(connection, arguments, *parameters):
    return [row[0] for row in connection.execute(f"select content from query_crowd({arguments})", parameters)]


def test_a_vector_needs_its_type(connection):
    vector = connection.execute("select embed('Invoices are due within thirty days.')").fetchone()[0]
    numbers = vector.to_list()
    invoices = ["Invoices are due within thirty days."]
    assert found(connection, "%s, 0.9, 1", vector) == invoices
    assert found(connection, "%s::vector, 0.9, 1", numbers) == invoices
    assert found(connection, "%s, 0.9, 1", Vector(numbers)) == invoices
    assert found(connection, "embedding => %s, match_threshold => 0.9, match_count => 1", str(numbers)) == invoices
    with pytest.raises(psycopg.errors.UndefinedFunction):
        found(connection, "%s, 0.9, 1", numbers)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="vector literal"):
        found(connection, "%s, 0.9, 1", str(numbers))


def test_a_list_of_texts_needs_its_type(connection):
    """psycopg sends a list of str without a type, so it is one text."""
    def embedded(statement, texts):
        return connection.execute(statement, [texts]).fetchone()[0]

    assert embedded("select embed(%s::text[])", ["cat", "dog"]) == [embedded("select embed(%s)", text) for text in ("cat", "dog")]
    assert embedded("select embed(%s::text[])", []) == []
    assert embedded("select embed(%s)", ["cat", "dog"]) == embedded("select embed(%s)", "{cat,dog}")
    assert embedded("select embed(%s)", []) == embedded("select embed(%s)", "{}")


def test_the_second_argument_is_no_count(connection):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="match_threshold is 5") as refused:
        found(connection, "%s, %s", "invoices", 5)
    assert "match_count => 5" in refused.value.diag.message_hint


def test_a_blank_search_is_an_error_and_null_returns_nothing(connection):
    for blank in ("", " \n"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="search text is blank") as raised:
            connection.execute("select content from search_crowd(%s, 5)", (blank,))
        assert raised.value.sqlstate == "22023"
    assert connection.execute("select content from search_crowd(%s, 5)", (None,)).fetchall() == []


def test_a_backfill_needs_autocommit(crowd):
    with crowd.connect(autocommit=False) as connection:
        with pytest.raises(psycopg.errors.InvalidTransactionTermination) as refused:
            connection.execute("call embed_backfill('crowd')")
        assert "psycopg" in refused.value.diag.message_hint


# --- prepared statements ---

SEARCHES = {
    "query, LIMIT outside": "select content from query_crowd(%s, null) limit 3",
    "query, match_count": "select content from query_crowd(%s, null, 3)",
    "search": "select content from search_crowd(%s, 3)",
    "operator": "select content from crowd order by embedding <#> (select embed_query(%s)) limit 3",
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("mode", ["auto", "force_generic_plan"])
def test_prepared_searches_use_the_index_and_run_the_model_once(crowd, search, mode):
    """PostgreSQL may change to a generic plan after five executions; psycopg prepares after five."""
    with crowd.scanning(12):
        with crowd.connect(prepare_threshold=0) as connection:
            connection.execute(f"set plan_cache_mode = {mode}")
            connection.execute("set gte_small.memo_size = 0")
            before = connection.execute("select model_runs from embed_stats()").fetchone()[0]
            for number in range(12):
                rows = connection.execute(search, [f"when must I pay number {number}?"]).fetchall()
                assert len(rows) == 3 and rows[0][0].startswith("Invoices")
            assert connection.execute("select model_runs from embed_stats()").fetchone()[0] == before + 12
            prepared = connection.execute("select max(generic_plans + custom_plans) from pg_prepared_statements").fetchone()[0]
            assert prepared >= 12


def test_a_generic_plan_runs_the_model_for_each_row_without_a_subquery(crowd):
    """Why the operator's argument is `(select embed_query(...))`. By itself PostgreSQL keeps the custom plan."""
    def runs(mode):
        with crowd.connect(prepare_threshold=0) as connection:
            connection.execute(f"set plan_cache_mode = {mode}")
            connection.execute("set gte_small.memo_size = 0")
            for number in range(12):
                connection.execute("select content from crowd order by embedding <#> embed_query(%s) limit 3", [f"pay {number}"])
            return connection.execute("select model_runs from embed_stats()").fetchone()[0]

    assert runs("auto") == 12
    assert runs("force_generic_plan") > 12


# --- pgvector's own operators ---


@pytest.mark.parametrize("operator, uses_index", [("<#>", True), ("<->", False), ("<=>", False)])
def test_only_the_inner_product_reaches_the_index(connection, operator, uses_index):
    """`<->` and `<=>` stand in pgvector's README. On unit vectors all three give the same order."""
    statement = f"select content from crowd order by embedding {operator} embed_query(%s) limit 3"
    plan = "\n".join(row[0] for row in connection.execute("explain " + statement, ["pay"]))
    assert ("Index Scan using crowd_embedding_idx" in plan) == uses_index
    assert ("Seq Scan" in plan) != uses_index
    assert connection.execute(statement, ["when must I pay?"]).fetchone()[0].startswith("Invoices")
