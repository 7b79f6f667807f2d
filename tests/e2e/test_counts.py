"""A count is a promise: as many rows as were asked for, if the caller may see so many that pass filter and threshold.

The vectors are random; the planner is made to take the HNSW index, which returns 40 rows by itself (hnsw.ef_search).
"""

import psycopg
import pytest

from measure import one

ROWS = 3000
VECTOR = "(select l2_normalize(array_agg(random() - 0.5 + 0 * (i + n))::vector(384)) from generate_series(1, 384) n)"
# Vectors of texts and random vectors: any search is as good as another.
FORMS = {
    "vector": "select id from query_docs(embed('a dog'), null, {count}, '{filter}')",
    "text": "select id from query_docs('a cat', null, {count}, '{filter}')",
    "friendly": "select id from search_docs('a cat', {count}, null, '{filter}')",
    "hybrid": "select (item).id from hybrid_docs('a cat', {count}, filter => '{filter}')",
    "lateral": "select q.id from json_to_record('{{\"search\": \"a cat\", \"match_count\": {count}}}') a (search text, match_count int), "
               "lateral search_docs(search := a.search, match_count := a.match_count, filter := '{filter}') q",
}
every_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(scope="module")
def filled(server):
    """Rows of 300 tenants, ten each; the index is built over all of them."""
    database = server.create_database()
    connection = database.connect()
    connection.execute("select setseed(0.5); create table docs (id int primary key, content text, tenant int, owner text, embedding vector(384))")
    connection.execute(f"insert into docs select i, 'text ' || i, i % 300, 'role_' || i % 300, {VECTOR} from generate_series(1, {ROWS}) i")
    connection.execute("select enable_semantic_search('docs'); analyze docs; grant select on docs to gte_reader")
    yield database
    database.drop()


@pytest.fixture
def docs(filled):
    connection = filled.connect()
    connection.execute("set enable_seqscan = off")
    yield connection
    connection.close()


def ids(connection, form, count=10, filter="{}"):
    return [row[0] for row in connection.execute(FORMS[form].format(count=count, filter=filter.replace("%", "%%"))).fetchall()]


@every_form
@pytest.mark.parametrize("count", [0, 1, 10, 100, 1000, ROWS + 5])
def test_as_many_rows_as_were_asked_for(docs, form, count):
    found = ids(docs, form, count)
    assert len(found) == len(set(found)) == min(count, ROWS)


def test_the_index_serves_it(docs):
    with docs.transaction():
        ids(docs, "vector", 100)
        assert one(docs, "select pg_stat_get_xact_numscans('docs_embedding_idx'::regclass)") == 1
        assert one(docs, "select pg_stat_get_xact_numscans('docs'::regclass)") == 0


@every_form
def test_under_a_policy_that_shows_ten_rows(filled, form):
    owner, reader = filled.connect(), filled.connect("gte_reader")
    owner.execute("alter table docs enable row level security; create policy ten on docs for select to gte_reader using (owner = 'role_7')")
    try:
        reader.execute("set enable_seqscan = off")
        assert sorted(ids(reader, form, 100)) == list(range(7, ROWS, 300))
        assert len(ids(reader, form, 5)) == 5
    finally:
        owner.execute("drop policy ten on docs; alter table docs disable row level security")
        reader.close()
        owner.close()


@every_form
@pytest.mark.parametrize("index", [False, True])
def test_a_filter_that_few_rows_pass(docs, form, index):
    with docs.transaction(force_rollback=True):
        if index:
            docs.execute("create index on docs (tenant)")
        assert sorted(ids(docs, form, 100, '{"tenant": 7}')) == list(range(7, ROWS, 300))
        assert len(ids(docs, form, 4, '{"tenant": [7, 8]}')) == 4
        assert ids(docs, form, 4, '{"tenant": []}') == []


@every_form
def test_the_nearest_rows_were_deleted(docs, form):
    with docs.transaction(force_rollback=True):
        docs.execute("delete from docs where id in (select id from query_docs('a cat', null, 500)) "
                     "or id in (select q.id from query_docs((select embedding from docs where id = 1), null, 500) q where q.id <> 1)")
        assert len(ids(docs, form, 100)) == 100


@pytest.fixture(scope="module")
def crowded(server):
    """A table of its own: copies that were rolled back would stay in the index as dead rows."""
    database = server.create_database()
    connection = database.connect()
    connection.execute("create table docs (id int primary key, content text, embedding vector(384)); select enable_semantic_search('docs')")
    connection.execute("insert into docs (id, content) select i, 'same' from generate_series(1, 2000) i; "
                       "insert into docs (id, content) select i, 'text ' || i from generate_series(2001, 2300) i; analyze docs")
    yield database
    database.drop()


@every_form
def test_thousands_of_equal_vectors(crowded, form):
    connection = crowded.connect()
    connection.execute("set enable_seqscan = off")
    for count in (100, 300, 2300):
        found = ids(connection, form, count)
        assert len(found) == len(set(found)) == count
    connection.close()


def test_partitions(connection):
    connection.execute("create table docs (id int primary key, content text, tenant int, embedding vector(384)) partition by hash (id)")
    for part in range(4):
        connection.execute(f"create table docs_{part} partition of docs for values with (modulus 4, remainder {part})")
    connection.execute(f"insert into docs select i, 'text ' || i, i % 100, {VECTOR} from generate_series(1, 1000) i")
    connection.execute("select enable_semantic_search('docs'); analyze docs; set enable_seqscan = off")
    for form in FORMS:
        for count in (10, 100, 900):
            found = ids(connection, form, count)
            assert len(found) == len(set(found)) == count, form
        assert sorted(ids(connection, form, 100, '{"tenant": 7}')) == list(range(7, 1000, 100))


def test_a_threshold_without_a_limit_is_exact(docs):
    exact = one(docs, "select count(*) from docs where -(embedding <#> (select embedding from docs where id = 1)) > 0.05")
    assert exact > 40
    docs.execute("set random_page_cost = 1.1")
    call = "query_docs((select embedding from docs where id = 1)::vector, 0.05{})"
    assert one(docs, f"select count(*) from {call.format('')}") == exact
    assert len(docs.execute(f"select id from {call.format(', 2000')}").fetchall()) == exact
    vector = one(docs, "select embedding::text from docs where id = 1")
    assert len(docs.execute("select id from query_docs(%s::vector, 0.05)", [vector]).fetchall()) == exact


def test_a_where_around_the_inlined_form(docs):
    vector = one(docs, "select embedding::text from docs where id = 2")
    assert len(docs.execute("select id from query_docs(%s::vector) where tenant < 12 limit 100", [vector]).fetchall()) == 100
    assert len(docs.execute("select id from query_docs(%s::vector) where tenant = 7 limit 10", [vector]).fetchall()) == 10


def test_the_settings_are_those_of_the_session_again(docs):
    docs.execute("set hnsw.ef_search = 77; set hnsw.iterative_scan = off")
    ids(docs, "text", 100)
    with pytest.raises(psycopg.Error):
        ids(docs, "text", -1)
    assert one(docs, "show hnsw.ef_search") == "77" and one(docs, "show hnsw.iterative_scan") == "off"
