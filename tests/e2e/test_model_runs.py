"""Number of model runs for one search: one, for each form of `query_embeddings` in each kind of plan.

The memo is off, so that it can't hide a second run. The leader's counters count every run: most plans have no workers, and
in parallel plans the leader takes part.
"""

import json

import pytest

from measure import counting, one, unit_axis

ROWS = 3000
QUERY = "how do I see what a query is waiting for"

# A call of each form, its query as `{q}` (text) and its threshold as `{t}`.
FORMS = {
    "vector": "query_embeddings(embed({q}), {t})",
    "vector_count": "query_embeddings(embed({q}), {t}, 5)",
    "text": "query_embeddings(search := {q}, match_threshold := {t})",
    "text_count": "query_embeddings(search := {q}, match_threshold := {t}, match_count := 5)",
}
# The same with all arguments from a JSON body, as an RPC gateway writes it.
RPC_FORMS = {
    "vector": "query_embeddings(embedding := embed(args.search), match_threshold := args.match_threshold)",
    "vector_count": "query_embeddings(embedding := embed(args.search), match_threshold := args.match_threshold, "
    "match_count := args.match_count)",
    "text": "query_embeddings(search := args.search, match_threshold := args.match_threshold)",
    "text_count": "query_embeddings(search := args.search, match_threshold := args.match_threshold, "
    "match_count := args.match_count)",
}
PARALLEL = (
    "set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; "
    "set max_parallel_workers_per_gather = 2; set enable_indexscan = off; set jit = off"
)


@pytest.fixture(scope="module")
def filled(server):
    """The tutorial's table with random unit vectors and one row that matches the query. Tests only read it."""
    database = server.create_database()
    setup = database.connect()
    database.apply_embeddings_sql(setup)
    setup.execute("drop index embeddings_embedding_idx; select setseed(0.42)")
    with counting(setup) as counted:
        setup.execute(
            "insert into embeddings (content, embedding) select 'row ' || i, l2_normalize((select "
            "array_agg(random() - 0.5 + 0 * (i + place)) from generate_series(1, 384) place)::vector(384)) "
            f"from generate_series(1, {ROWS}) i"
        )
    assert counted.model_runs == 0
    database.apply_embeddings_sql(setup)
    setup.execute("insert into embeddings (content) values (%s)", [QUERY])
    setup.execute("analyze embeddings")
    yield database
    database.drop()


@pytest.fixture
def searching(filled):
    connection = filled.connect()
    connection.execute("set max_parallel_workers_per_gather = 0; set gte_small.memo_size = 0; set jit = off")
    # The first call loads the model.
    connection.execute("select embed('warm')")
    yield connection
    connection.close()


def run_once(connection, statement, parameters=None):
    with counting(connection) as counted:
        rows = connection.execute(statement, parameters).fetchall()
    assert rows == [(QUERY,)]
    assert (counted.model_runs, counted.texts) == (1, 1)


@pytest.mark.parametrize("form", FORMS)
def test_constant(searching, form):
    call = FORMS[form].format(q=f"'{QUERY}'", t="0.99")
    run_once(searching, f"select content from {call} limit 3")


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan", "auto"])
@pytest.mark.parametrize("form", FORMS)
def test_prepared(searching, form, mode):
    """Eight executions, because `auto` decides after five."""
    call = FORMS[form].format(q="$1", t="$2")
    searching.execute(f"set plan_cache_mode = {mode}")
    searching.execute(f"prepare search(text, float8) as select content from {call} limit 3")
    for _ in range(8):
        run_once(searching, f"execute search('{QUERY}', 0.99)")


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("form", RPC_FORMS)
def test_rpc_shape(searching, form, mode):
    searching.execute(f"set plan_cache_mode = {mode}")
    statement = (
        "with payload as (select %s::json as body) select r.content from payload, "
        "lateral json_to_record(payload.body) as args(search text, match_threshold float8, match_count int), "
        f"lateral {RPC_FORMS[form]} r limit 3"
    )
    body = json.dumps({"search": QUERY, "match_threshold": 0.99, "match_count": 5})
    with counting(searching) as counted:
        for _ in range(3):
            cursor = searching.execute(statement, [body], prepare=True)
            assert cursor.fetchall() == [(QUERY,)]
    assert (counted.model_runs, counted.texts) == (3, 3)


@pytest.mark.parametrize("count", [None, 5])
def test_rpc_with_a_vector_in_the_body_runs_no_model(searching, count):
    """The call of the tutorial's edge function: the vector as JSON, arguments by name."""
    vector = one(searching, "select embed(%s)::text", [QUERY])
    extra = ", match_count := args.match_count" if count else ""
    statement = (
        "select r.content from (select %s::json as body) payload, lateral json_to_record(payload.body) "
        "as args(embedding vector(384), match_threshold float8, match_count int), lateral query_embeddings("
        f"embedding := args.embedding, match_threshold := args.match_threshold{extra}) r limit 3"
    )
    body = json.dumps({"embedding": vector, "match_threshold": 0.99, "match_count": count})
    with counting(searching) as counted:
        assert searching.execute(statement, [body]).fetchall() == [(QUERY,)]
    assert counted.model_runs == 0


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("form", ["vector", "text"])
def test_parallel(searching, form, mode):
    """The filter over all rows in a parallel sequential scan. Here a simpler body ran the model for each row."""
    searching.execute(PARALLEL)
    searching.execute(f"set plan_cache_mode = {mode}")
    call = FORMS[form].format(q="$1", t="$2")
    searching.execute(f"prepare search(text, float8) as select content from {call}")
    plan = "\n".join(line for (line,) in searching.execute(f"explain (costs off) execute search('{QUERY}', 0.99)"))
    assert "Gather" in plan and "Parallel Seq Scan" in plan, plan
    run_once(searching, f"execute search('{QUERY}', 0.99)")


@pytest.mark.parametrize("form", ["vector_count", "text_count"])
def test_parallel_settings_with_match_count(searching, form):
    searching.execute(PARALLEL)
    for mode in ("force_custom_plan", "force_generic_plan"):
        searching.execute(f"set plan_cache_mode = {mode}; deallocate all")
        searching.execute(f"prepare search(text, float8) as select content from {FORMS[form].format(q='$1', t='$2')}")
        run_once(searching, f"execute search('{QUERY}', 0.99)")


@pytest.mark.parametrize("form", FORMS)
def test_outer_join_and_where(searching, form):
    """A search that is joined with the table and filtered by another column is one run."""
    call = FORMS[form].format(q=f"'{QUERY}'", t="0.99")
    run_once(
        searching,
        f"select r.content from {call} r join embeddings e using (id) where r.id > 0 and e.content <> 'row 1' limit 3",
    )


def test_the_memo_makes_the_next_search_free(searching):
    searching.execute("set gte_small.memo_size = 128")
    call = FORMS["text"].format(q=f"'{QUERY}'", t="0.99")
    searching.execute(f"select content from {call}")
    with counting(searching) as counted:
        searching.execute(f"select content from {call}")
    assert counted.model_runs == 0 and counted.memo_hits == 1


# --- the rows themselves ---


@pytest.mark.parametrize("form", ["vector", "text", "vector_count", "text_count"])
def test_nearest_first(searching, form):
    """Each form returns the same rows as an exact scan in the order of similarity."""
    searching.execute("set enable_indexscan = off")
    call = FORMS[form].format(q=f"'{QUERY}'", t="null")
    found = searching.execute(f"select content from {call} limit 5").fetchall()
    searching.execute("set gte_small.memo_size = 128")
    exact = searching.execute(
        "select content from embeddings order by (select embed(%s)) <#> embedding limit 5", [QUERY]
    ).fetchall()
    assert found == exact and found[0] == (QUERY,)


def test_null_threshold_is_none(searching):
    searching.execute("set enable_indexscan = off")
    assert one(searching, "select count(*) from query_embeddings(embed('x'), null)") == ROWS + 1
    assert one(searching, "select count(*) from query_embeddings('x', null)") == ROWS + 1
    assert one(searching, "select count(*) from query_embeddings(embed('x'), null, 7)") == 7
    assert one(searching, "select count(*) from query_embeddings('x', null, 7)") == 7


def test_orthogonal_vector_matches_nothing(database, tutorial):
    tutorial.execute("insert into embeddings (content, embedding) values ('east', %s)", [unit_axis(0)])
    for call in ("query_embeddings(%s::vector, 0.8)", "query_embeddings(embedding := %s, match_threshold := 0.8)",
                 "query_embeddings(%s::vector, 0.8, 10)"):
        assert tutorial.execute(f"select content from {call}", [unit_axis(1)]).fetchall() == []
        assert tutorial.execute(f"select content from {call}", [unit_axis(0)]).fetchall() == [("east",)]


def test_null_query_returns_nothing(tutorial):
    tutorial.execute("insert into embeddings (content) values ('something')")
    assert tutorial.execute("select * from query_embeddings(null::vector, 0.8)").fetchall() == []
    assert tutorial.execute("select * from query_embeddings(null::text, 0.8)").fetchall() == []
    assert tutorial.execute("select * from query_embeddings(null::vector, 0.8, 3)").fetchall() == []
    assert tutorial.execute("select * from query_embeddings(null::text, 0.8, 3)").fetchall() == []


def test_rows_without_embedding_are_not_found(tutorial):
    tutorial.execute("insert into embeddings (content) values ('gone'), ('here')")
    tutorial.execute("set gte_small.own_vectors = on; update embeddings set embedding = null where content = 'gone'")
    assert tutorial.execute("select content from query_embeddings('here', -1)").fetchall() == [("here",)]
    assert tutorial.execute("select content from query_embeddings('here', -1, 10)").fetchall() == [("here",)]


def test_relaxed_order_is_sorted_again(searching):
    searching.execute("set hnsw.iterative_scan = relaxed_order; set enable_seqscan = off; set hnsw.ef_search = 10")
    scores = searching.execute(
        "select embedding <#> (select embed(%s)) from query_embeddings(%s, -1, 200)", [QUERY, QUERY]
    ).fetchall()
    assert len(scores) > 10 and scores == sorted(scores)


def test_a_column_named_e(tutorial):
    """`(e.*)::table` and not `e`: a table may have a column with the name of the alias."""
    tutorial.execute("alter table embeddings add column e int default 7, add column d int default 8")
    tutorial.execute("insert into embeddings (content) values ('here')")
    for call in ("'here', 0.9", "'here', 0.9, 3", "embed('here'), 0.9", "embed('here'), 0.9, 3"):
        assert tutorial.execute(f"select content, e, d from query_embeddings({call})").fetchall() == [("here", 7, 8)]


def test_columns_come_and_go(tutorial):
    """String bodies follow the table: added columns appear, and dropped columns cause no error."""
    tutorial.execute("alter table embeddings add column a int default 1; alter table embeddings drop column a")
    tutorial.execute("alter table embeddings add column note text default 'new'")
    tutorial.execute("insert into embeddings (content) values ('here')")
    assert tutorial.execute("select content, note from query_embeddings('here', 0.9, 3)").fetchall() == [("here", "new")]
    assert tutorial.execute("select content, note from query_embeddings('here', 0.9)").fetchall() == [("here", "new")]


def test_pushed_down_limit_and_filter_agree(searching):
    """The threshold outside or inside the LIMIT gives the same rows, because the filter is on the sort key."""
    vector = one(searching, "select embedding::text from embeddings where content = 'row 17'")
    searching.execute("set enable_indexscan = off")
    two = searching.execute("select id from query_embeddings(%s::vector, 0.05) limit 20", [vector]).fetchall()
    three = searching.execute("select id from query_embeddings(%s::vector, 0.05, 20)", [vector]).fetchall()
    assert two == three and len(two) == 20
