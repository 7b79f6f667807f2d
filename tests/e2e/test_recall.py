"""`embedding_recall`: the share of the nearest rows that searches by the index find."""

import random

import psycopg
import pytest

from measure import DIMS, one, unit_axis

RECALL = "select k, embedding, queries, recall, index_used from embedding_recall('docs'{})"


def fill(connection, count, seed=1, clusters=None):
    """Rows of unit vectors, random or around some centres."""
    rng = random.Random(seed)
    centres = [[rng.gauss(0, 1) for _ in range(DIMS)] for _ in range(clusters or 0)]
    with connection.cursor().copy("copy docs (id, content, embedding) from stdin") as copy:
        for number in range(count):
            if clusters:
                centre = centres[number % clusters]
                values = [c + 0.3 * rng.gauss(0, 1) for c in centre]
            else:
                values = [rng.gauss(0, 1) for _ in range(DIMS)]
            length = sum(v * v for v in values) ** 0.5
            copy.write_row((number, f"text {number}", "[" + ",".join(f"{v / length:.5f}" for v in values) + "]"))


@pytest.fixture
def docs(connection):
    connection.execute("create table docs (id int primary key, content text, owner text default 'gte_plain')")
    connection.execute("select enable_semantic_search('docs', with_index => false)")
    connection.execute("set enable_seqscan = off; set jit = off")
    return connection


@pytest.fixture
def notices(connection):
    said = []
    connection.add_notice_handler(lambda notice: said.append((notice.message_primary, notice.message_hint)))
    return said


def index(connection, options=""):
    connection.execute(f"create index docs_near on docs using hnsw (embedding vector_ip_ops) {options}; analyze docs")


def recall_of_all(connection, k):
    """What embedding_recall estimates, from every row: computed here, with ids and without the statements of the extension."""
    rows = connection.execute("select id, embedding::text from docs where embedding is not null").fetchall()
    found = total = 0
    for number, values in rows:
        connection.execute("set enable_indexscan = off; set enable_seqscan = on")
        exact = connection.execute("select -(embedding <#> %s) from docs where id <> %s and embedding is not null order by 1 desc limit %s",
                                   [values, number, k]).fetchall()
        connection.execute("set enable_indexscan = on; set enable_seqscan = off")
        near = connection.execute("select id, -(embedding <#> %s) from docs order by embedding <#> %s limit %s", [values, values, k + 1]).fetchall()
        total += len(exact)
        found += min(len(exact), sum(1 for other, similarity in near if other != number and similarity >= exact[-1][0]))
    return found / total


@pytest.mark.parametrize("clusters, options, k", [(None, "with (m = 2, ef_construction = 4)", 10), (20, "with (m = 4, ef_construction = 8)", 5),
                                                  (None, "", 1), (None, "with (m = 2, ef_construction = 4)", 60)])
def test_it_is_the_share_that_the_index_finds(docs, notices, clusters, options, k):
    """All rows are sampled, so the figure is exact. With k above hnsw.ef_search the rest is missing."""
    fill(docs, 300, clusters=clusters)
    index(docs, options)
    notices.clear()
    recall = docs.execute(RECALL.format(f", {k}, 1000")).fetchall()
    assert notices == []
    assert recall == [(k, "embedding", 300, pytest.approx(recall_of_all(docs, k)), True)]
    assert 0 < recall[0][3] <= 1
    if k == 60:
        assert recall[0][3] <= 39 / 60


def test_settings_of_the_session_decide(docs):
    fill(docs, 400)
    index(docs, "with (m = 2, ef_construction = 4)")
    recalls = []
    for ef_search in (1, 40, 400):
        docs.execute(f"set hnsw.ef_search = {ef_search}")
        recalls.append(docs.execute(RECALL.format(", 10, 1000")).fetchone()[3])
    assert recalls[0] <= 0.1 < recalls[1] <= recalls[2]


def test_a_sample_of_a_large_table(docs):
    fill(docs, 3000, clusters=30)
    index(docs)
    k, _, queries, recall, index_used = docs.execute(RECALL.format("")).fetchone()
    assert (k, queries, index_used) == (10, 100, True) and 0.3 < recall <= 1


def test_equally_near_rows_count_as_found(docs):
    """Of 200 equal rows any ten are right."""
    docs.execute("insert into docs (id, content, embedding) select i, 'same', %s from generate_series(1, 200) i", [unit_axis(0)])
    docs.execute("insert into docs (id, content, embedding) select i, 'other', %s from generate_series(201, 210) i", [unit_axis(1)])
    index(docs)
    assert docs.execute(RECALL.format(", 10, 1000")).fetchone()[3] > 0.9


def test_fewer_rows_than_neighbours(docs):
    fill(docs, 5)
    docs.execute("insert into docs (id) values (100)")
    index(docs)
    assert docs.execute(RECALL.format(", 10")).fetchall() == [(10, "embedding", 5, 1.0, True)]


def test_one_row_and_none(docs):
    index(docs)
    assert docs.execute(RECALL.format("")).fetchall() == [(10, "embedding", 0, None, None)]
    fill(docs, 1)
    assert docs.execute(RECALL.format("")).fetchall() == [(10, "embedding", 1, None, True)]


def test_without_an_index_all_rows_are_found(docs, notices):
    fill(docs, 50)
    notices.clear()
    assert docs.execute(RECALL.format("")).fetchall() == [(10, "embedding", 50, 1.0, False)]
    assert notices == [("searches in column embedding of table docs use no index",
                        "enable_semantic_search() makes an index, which is faster for many rows.")]
    index(docs)
    docs.execute("set enable_indexscan = off; set enable_seqscan = on")
    notices.clear()
    assert docs.execute(RECALL.format("")).fetchone()[4] is False
    assert "enable_seqscan = off" in notices[0][1]


def test_an_index_of_halfvec(docs):
    fill(docs, 100)
    docs.execute("create index on docs using hnsw ((embedding::halfvec(384)) halfvec_ip_ops); analyze docs")
    _, _, queries, recall, index_used = docs.execute(RECALL.format("")).fetchone()
    assert (queries, index_used) == (100, True) and recall > 0.8


def test_each_embedding_column_has_a_row(docs):
    docs.execute("alter table docs add title text; select enable_semantic_search('docs', '{title}', 'title_embedding', with_index => false, "
                 "search_function => 'query_titles')")
    fill(docs, 30)
    docs.execute("update docs set title_embedding = embedding")
    index(docs)
    assert [(row[1], row[2], row[4]) for row in docs.execute(RECALL.format(""))] == [("embedding", 30, True), ("title_embedding", 30, False)]
    assert [row[1] for row in docs.execute(RECALL.format(", embedding => 'title_embedding'"))] == ["title_embedding"]
    with pytest.raises(psycopg.errors.UndefinedColumn):
        docs.execute(RECALL.format(", embedding => 'content'"))


def test_partitions(connection):
    connection.execute("create table docs (id int, content text) partition by hash (id); "
                       "create table docs_0 partition of docs for values with (modulus 2, remainder 0); "
                       "create table docs_1 partition of docs for values with (modulus 2, remainder 1)")
    connection.execute("select enable_semantic_search('docs'); set enable_seqscan = off")
    fill(connection, 200)
    connection.execute("analyze docs")
    _, _, queries, recall, index_used = connection.execute(RECALL.format("")).fetchone()
    assert (queries, index_used) == (100, True) and recall > 0.9


# --- rights ---


def test_a_caller_under_a_policy(database, docs, notices):
    """It is measured on the rows that the caller may see. Others take places in the search by the index."""
    fill(docs, 300)
    index(docs)
    # A function with unqualified names: the policy needs the search_path of the caller.
    docs.execute("create table members (name text); insert into members values ('gte_plain'); "
                 "create function mine(owner text) returns bool language plpgsql stable as "
                 "$$ begin return owner = current_user and exists (select from members where name = owner); end $$; "
                 "update docs set owner = 'gte_owner' where id % 10 <> 0; "
                 "alter table docs enable row level security; create policy mine on docs using (mine(owner)); "
                 "grant select on docs, members to gte_plain")
    plain = database.connect("gte_plain")
    said = []
    plain.add_notice_handler(lambda notice: said.append(notice.message_primary))
    # As it is in a session that has not loaded the library of gte-small; looking up the columns may load it.
    plain.execute("set enable_seqscan = off; set jit = off; set hnsw.iterative_scan = off")
    _, _, queries, recall, index_used = plain.execute(RECALL.format(", 10, 1000")).fetchone()
    assert (queries, index_used) == (30, True) and 0 < recall < 0.9
    assert said == ["row-level security applies to table docs"]
    plain.execute("set hnsw.iterative_scan = strict_order")
    assert plain.execute(RECALL.format(", 10, 1000")).fetchone()[3] > recall


def test_a_caller_without_rights(database, docs):
    fill(docs, 5)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.connect("gte_plain").execute(RECALL.format(""))


def test_a_hostile_search_path(database, docs):
    fill(docs, 50)
    index(docs)
    docs.execute("create schema planted; create function planted.always(int, int) returns bool language sql as 'select true'; "
                 "create operator planted.< (leftarg = int, rightarg = int, function = planted.always); "
                 "create function planted.cardinality(anyarray) returns int language sql as 'select 0'; "
                 "set search_path = planted, pg_catalog, public")
    assert docs.execute(RECALL.replace("embedding_recall", "public.embedding_recall").replace("'docs'", "'public.docs'").format("")).fetchone()[2] == 50


@pytest.mark.parametrize("arguments", ["0", "-1", "null", "10, 0", "10, -5", "10, null"])
def test_arguments_that_make_no_sense(docs, arguments):
    with pytest.raises(psycopg.errors.InvalidParameterValue) as error:
        docs.execute(RECALL.format(f", {arguments}"))
    assert error.value.diag.message_hint


def test_a_large_k(docs):
    fill(docs, 20)
    index(docs)
    assert docs.execute(RECALL.format(", 2147483647, 2147483647")).fetchone()[3] == 1


def test_a_table_without_embeddings(connection):
    connection.execute("create table docs (id int)")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        connection.execute(RECALL.format(""))
    assert one(connection, "select 1") == 1
