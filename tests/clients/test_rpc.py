"""supabase-js and postgrest-py by the SQL that PostgREST sends: examples/supabase-js, examples/postgrest-py.

rpc_server.py says what this proves and what not.
"""

import json
import subprocess

import pytest
from postgrest import APIError, SyncPostgrestClient

import rpc_server
from conftest import CLONE, EXAMPLES

LINES = [
    "0.41  Passwords",
    "0.01  Holidays",
    "Invoices: Invoices are sent on the first day of the month.",
    "next to it: Holidays: The office is closed between Christmas and New Year.",
]


@pytest.fixture(scope="session")
def roles(server):
    """Roles belong to the whole server."""
    for role in ("anon", "authenticated"):
        server.execute(f"do $$ begin create role {role}; exception when duplicate_object then null; end $$")


@pytest.fixture(scope="module")
def documents(server, roles):
    """One database with the tables of the examples. The tests only read."""
    database = server.create()
    with database.connect() as connection:
        connection.execute((CLONE / "sql" / "embeddings.sql").read_text("utf-8"))
        connection.execute((EXAMPLES / "supabase-js" / "setup.sql").read_text("utf-8"))
    yield database
    server.drop(database)


@pytest.fixture(scope="module")
def api(documents):
    with rpc_server.serving(documents) as url:
        yield {"SUPABASE_URL": url, "SUPABASE_KEY": "a key"}


def test_a_second_run_of_the_setup_changes_nothing(database, roles):
    with database.connect() as connection:
        connection.execute((CLONE / "sql" / "embeddings.sql").read_text("utf-8"))
    for _ in range(2):
        # As a user runs it: psql goes on after an error.
        subprocess.run([database.cluster.bin / "psql", "-Xq", "-f", EXAMPLES / "supabase-js" / "setup.sql", database.uri], capture_output=True)
    assert database.value("select count(*) from docs") == 4 and database.value("select count(*) from embeddings") == 3


@pytest.fixture
def client(api):
    return SyncPostgrestClient(api["SUPABASE_URL"] + "/rest/v1")


@pytest.mark.parametrize("example", ["supabase-js", "postgrest-py"])
def test_the_example_prints_the_same_each_time(run, api, printed, example):
    printed(run(example, **api), LINES)
    printed(run(example, **api), LINES)


def contents(client, **arguments):
    return [row["content"] for row in client.rpc("query_embeddings", arguments).execute().data]


def test_the_names_of_arguments_choose_the_form(client, documents):
    text = documents.value("select embedding::text from embeddings where content like 'Invoices%%'")
    for embedding in (text, json.loads(text)):
        assert contents(client, embedding=embedding, match_threshold=0.9)[0].startswith("Invoices")
        assert contents(client, embedding=embedding, match_threshold=0.9, match_count=1)[0].startswith("Invoices")
    assert contents(client, search="when do you bill me?", match_threshold=0.1)[0].startswith("Invoices")
    assert contents(client, search="when do you bill me?", match_threshold=None, match_count=1)[0].startswith("Invoices")
    # A filter that excludes all.
    assert contents(client, search="bill", match_threshold=None, match_count=1, filter={"id": -1}) == []


def test_no_set_of_names_fits_two_functions(documents):
    """PostgREST answers 300 where two functions of a name take the same arguments."""
    with documents.connect() as connection:
        for name, given in [("query_embeddings", {"search"}), ("query_embeddings", {"embedding"}), ("search_docs", {"search"}),
                            ("hybrid_docs", {"search"}), ("query_docs", {"search", "match_threshold"}),
                            ("query_docs", {"search", "match_threshold", "match_count"}),
                            ("query_docs", {"embedding", "match_threshold", "match_count", "filter"}),
                            ("search_docs", {"search", "match_count", "match_threshold", "filter"})]:
            assert rpc_server.function(connection, name, given).keys() == given
        with pytest.raises(rpc_server.Refused, match="no function"):
            # Counted and without a threshold is search_docs.
            rpc_server.function(connection, "query_docs", {"search", "match_count"})


def test_select_order_limit_and_filters(client):
    def titles(request):
        return [row["title"] for row in request.execute().data]

    def search(**more):
        return client.rpc("search_docs", {"search": "log in", **more})

    assert sorted(titles(search())) == ["Holidays", "Invoices", "Passwords", "Passwörter"]
    assert titles(search().order("title", desc=True).limit(2)) == ["Passwörter", "Passwords"]
    assert titles(search().in_("title", ["Holidays", "Invoices"]).order("title").offset(1)) == ["Invoices"]
    assert titles(search().select("title").gt("similarity", 0.2).eq("lang", "en")) == ["Passwords"]
    assert search(match_count=1).select("id").execute().data[0].keys() == {"id"}


def test_a_filter_behind_the_call_takes_rows_away(client):
    """The function returns `match_count` rows; its own argument `filter` keeps the count."""
    behind = client.rpc("search_docs", {"search": "Passwort vergessen", "match_count": 2}).eq("lang", "en").execute()
    inside = client.rpc("search_docs", {"search": "Passwort vergessen", "match_count": 2, "filter": {"lang": "en"}}).execute()
    assert len(behind.data) == 1 and len(inside.data) == 2


def test_an_error_has_its_hint(client):
    with pytest.raises(APIError) as refused:
        client.rpc("query_embeddings", {"search": "login", "match_threshold": 5}).execute()
    assert refused.value.code == "22023" and "match_count => 5" in refused.value.hint


# --- plans ---


@pytest.fixture
def searches(crowd, roles):
    """Counts index scans of a request, sent 12 times, so that its plan may become generic."""
    with crowd.connect() as connection:
        connection.execute("grant select on crowd to anon, authenticated")

    def send(name, arguments, query=(), scans=12):
        with crowd.scanning(scans), crowd.connect(prepare_threshold=0) as connection:
            connection.execute("set gte_small.memo_size = 0")
            for number in range(12):
                given = {**arguments, "search": f"when must I pay number {number}?"} if "search" in arguments else arguments
                rows = json.loads(rpc_server.answer(connection, name, query, given)[0][1])
                assert len(rows) == 3 and rows[0]["content"].startswith("Invoices")
            return connection.execute("select model_runs from embed_stats()").fetchone()[0]

    return send


LIMIT = [("select", "content"), ("limit", "3")]


def test_counted_searches_use_the_index_and_run_the_model_once(searches, crowd):
    vector = crowd.value("select embedding::text from crowd where content like 'Invoices%%'")
    assert searches("search_crowd", {"search": "", "match_count": 3}) == 12
    assert searches("search_crowd", {"search": ""}, LIMIT) == 12
    assert searches("query_crowd", {"search": "", "match_threshold": None, "match_count": 3}) == 12
    assert searches("query_crowd", {"embedding": vector, "match_threshold": None, "match_count": 3}, LIMIT) == 0


def test_a_search_without_a_count_reads_the_table(searches, crowd):
    """The limit is outside of the function, and the arguments come from a row of another relation."""
    assert searches("query_crowd", {"search": "", "match_threshold": None}, LIMIT, scans=0) == 12
