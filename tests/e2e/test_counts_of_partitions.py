"""One scan can end short while another meets a row beyond the threshold: the rows above it come all the same. Partitions have a
scan each, and so has the second index of a table with many equal vectors."""

import pytest

from measure import one


def axis(cosine):
    """A unit vector with this cosine to the first axis."""
    return "[" + ",".join(map(str, [cosine, (1 - cosine * cosine) ** 0.5, *[0] * 382])) + "]"


@pytest.mark.parametrize("partitioned", [True, False])
def test_a_filter_with_a_threshold(connection, partitioned):
    connection.execute("create table docs (tenant int, id int, content text, embedding vector(384), primary key (tenant, id))"
                       + (" partition by list (tenant); create table docs_1 partition of docs for values in (1); "
                          "create table docs_2 partition of docs for values in (2)" if partitioned else ""))
    connection.execute("insert into docs select 1, i, 'y', %s from generate_series(1, 3000) i", [axis(0.99)])
    connection.execute("insert into docs select 1, i, 'z', %s from generate_series(3001, 3005) i", [axis(0.85)])
    connection.execute("insert into docs select 2, i, 'z', %s from generate_series(1, 5) i", [axis(0.0)])
    connection.execute("select enable_semantic_search('docs')")
    connection.execute("set hnsw.max_scan_tuples = 1000; set hnsw.ef_search = 10; set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off")
    found = "select count(*) from query_docs(%s::vector, 0.7, 8, '{\"content\": \"z\"}')"
    assert one(connection, found, [axis(1.0)]) == 5
