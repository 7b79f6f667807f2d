"""The values that the page offers for a filter, and how it counts the rows that it samples."""

from conftest import reader
from test_server import make_slow, one


def offered(docs, label: str = "docs") -> dict:
    return {field["column"]: field for field in docs.call("filters", **docs.table(label))["filters"]}


def test_a_long_value_is_not_offered(docs, connection):
    connection.execute("update docs set lang = case when id = 1 then repeat('x', 1000000) else lang end")
    connection.execute("alter table docs add same text; update docs set same = repeat('y', 1000000); select refresh_semantic_search()")
    found = offered(docs)
    # Boxes would leave the rows with the long value out of reach; a field takes any value.
    assert not found["lang"]["choice"] and sorted(found["lang"]["values"]) == ["en", "fr", "ja"]
    assert not found["same"]["choice"] and found["same"]["values"] == []


def test_few_documents_of_many_chunks_offer_their_values(docs, connection):
    connection.execute("create table papers (id int primary key, kind text, body text); select enable_document_search('papers', '{body}')")
    connection.execute("insert into papers select i, 'kind ' || i % 2, 'night' from generate_series(1, 20) i")
    connection.execute("grant select on papers, papers_chunks to gte_web")
    # As many chunks as the statistics of a large table have: less than a page of the documents would be read.
    connection.execute("update pg_class set reltuples = 1e9 where relname = 'papers_chunks'")
    assert offered(docs, "papers")["kind"]["values"] == ["kind 0", "kind 1"]


def test_the_rows_of_a_partitioned_table_are_counted_once(docs, connection):
    connection.execute("create table parts (id int, body text) partition by range (id)")
    connection.execute("create table parts_1 partition of parts for values from (0) to (10); create table parts_2 partition of parts for values from (10) to (100)")
    connection.execute("select enable_semantic_search('parts', '{body}')")
    connection.execute("insert into parts select i, 'night' from generate_series(1, 30) i; grant select on parts to gte_web; analyze parts")
    assert one(connection, "select reltuples from pg_class where relname = 'parts'") == 30
    assert [t["rows"] for t in docs.call("overview")["tables"] if t["label"] == "parts"] == [30]


def test_columns_whose_values_take_too_long_can_be_filtered_by(docs, connection, database, page):
    make_slow(connection)
    found = offered(page(reader(database), timeout_ms=2000))
    assert set(found) == {"id", "lang", "priority"} and not any(field["choice"] or field["values"] for field in found.values())
