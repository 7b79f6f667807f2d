"""The order of rows at the same distance: by the primary key, so that pages don't overlap."""

import pytest

from measure import one

PAGES, SIZE = 5, 20


@pytest.fixture
def docs(connection):
    """100 equal rows among others, written in another order than that of the key."""
    connection.execute("create table docs (a int, b int, content text, primary key (b, a)); select enable_semantic_search('docs')")
    connection.execute("insert into docs select i % 10, i / 10, 'the same' from generate_series(0, 99) i order by md5(i::text)")
    connection.execute("insert into docs select i, 1000, 'another text ' || i from generate_series(1, 300) i; analyze docs")
    return connection


def pages(connection, call):
    return [connection.execute(f"select (r).a, (r).b from ({call}) s limit {SIZE} offset {page * SIZE}").fetchall() for page in range(PAGES)]


EXPECTED = sorted((i // 10, i % 10) for i in range(PAGES * SIZE))


@pytest.mark.parametrize("planner", ["", "set enable_seqscan = off"])
@pytest.mark.parametrize("call", ["select q as r from query_docs('the same') q", "select q as r from query_docs('the same', null, 100) q",
                                  "select item as r from hybrid_docs('the same', 100, 0)"])
def test_pages_over_equal_rows_hold_each_row_once_by_the_key(docs, call, planner):
    docs.execute(planner or "select 1")
    if docs.info.server_version < 170000 and "query_docs('the same') q" in call:
        pytest.skip("before 17 the planner can't order by an index and a key, so this form has no key")
    found = pages(docs, call)
    rows = [row for page in found for row in page]
    assert len(set(rows)) == PAGES * SIZE
    assert [(b, a) for a, b in rows] == EXPECTED


def test_counts_are_prefixes_of_each_other(docs):
    docs.execute("set enable_seqscan = off")
    longest = docs.execute("select a, b from search_docs('the same', 90)").fetchall()
    for count in (1, 7, 40, 89):
        assert docs.execute(f"select a, b from search_docs('the same', {count})").fetchall() == longest[:count]


def test_without_a_primary_key_the_place_decides(connection):
    connection.execute("create table notes (id int, content text); select enable_semantic_search('notes'); "
                       "insert into notes select i, 'the same' from generate_series(1, 60) i")
    if connection.info.server_version >= 170000:
        found = [row[0] for page in range(3) for row in connection.execute(
            f"select id from query_notes('the same') limit 20 offset {20 * page}").fetchall()]
        assert found == list(range(1, 61))
    assert one(connection, "select array_agg(id) from query_notes('the same', null, 5)") == [1, 2, 3, 4, 5]
