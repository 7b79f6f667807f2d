"""The promises of counts on a distributed table, and the same answers as a local table."""

import pytest


@pytest.fixture(scope="module")
def filled(nodes):
    """The same 1,200 rows in a local table and in one of eight shards: many alike, some deleted."""
    with nodes.coordinator.connect() as connection:
        for name in ("here", "there"):
            connection.execute(f"create table counts_{name} (tenant int, id int, content text, primary key (tenant, id))")
        connection.execute("select create_distributed_table('counts_there', 'tenant', shard_count => 8)")
        for name in ("here", "there"):
            connection.execute(f"select enable_semantic_search('counts_{name}')")
            connection.execute(
                f"insert into counts_{name} select i % 10, i, case when i <= 300 then 'The same sentence.' else "
                "format('Sentence %s about %s.', i, (array['cats','dogs','taxes','rain','music','bread'])[1 + i % 6]) end "
                "from generate_series(1, 1200) i")
            connection.execute(f"delete from counts_{name} where id between 400 and 500")
    return nodes


@pytest.mark.parametrize("count", [0, 1, 10, 60, 500, 2000])
def test_as_many_rows_as_asked_for(filled, db, count):
    expected = min(count, 1099)
    assert db.value("select count(*) from query_counts_there('something about rain', null, %s)", count) == expected
    assert db.value("select count(*) from search_counts_there('something about rain', %s)", count) == expected


@pytest.mark.parametrize("tenant", range(3))
def test_as_many_rows_as_pass_the_filter(filled, db, tenant):
    there = db.value("select count(*) from counts_there where tenant = %s", tenant)
    assert db.value("select count(*) from search_counts_there('music', 1000, filter => jsonb_build_object('tenant', %s::int))", tenant) == there


def test_a_threshold_gives_the_same_rows_as_a_local_table(filled, db):
    for threshold in (0.1, 0.3):
        rows = [set(db.column(f"select id from query_counts_{name}('a sentence about dogs', %s::float8)", threshold)) for name in ("here", "there")]
        assert rows[0] == rows[1] and rows[0]


def test_the_same_order_as_a_local_table(filled, db):
    """Vectors are equal bit by bit only on processors of one kind, which these clusters share."""
    for search in ("taxes", "cats and dogs", "fresh bread"):
        here, there = (db.rows(f"select id, similarity from search_counts_{name}(%s, 20)", search) for name in ("here", "there"))
        assert here == there


def test_hybrid_gives_the_same_rows_as_a_local_table(filled, db):
    # Rows of one text have one rank by meaning, and which of them come is open.
    for search in ("taxes 617", "bread 900 rain", "sentence 1105 about music"):
        here, there = (db.rows(f"select (item).id, full_text_rank, semantic_rank, score from hybrid_counts_{name}(%s, 20) "
                               "order by score desc, 1", search) for name in ("here", "there"))
        assert here == there, search


def test_pages_do_not_overlap(filled, db):
    pages = [db.column("select id from search_counts_there('The same sentence.', %s) offset %s limit 100", n, n - 100) for n in (100, 200, 300)]
    assert len({row for page in pages for row in page}) == 300
