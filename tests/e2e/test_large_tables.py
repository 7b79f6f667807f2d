"""On a large table enable_semantic_search() builds no index, and prints the statements that build it without locking out writers."""

import psycopg
import pytest

from measure import one

ENABLE = "select enable_semantic_search('docs', index_options => '{\"build\": \"later\"}')"
STATEMENTS = "select gte_small.index_statements('docs', 'embedding')"


def heard_from(connection):
    """The message and the hint of each notice."""
    heard = []
    connection.add_notice_handler(lambda notice: heard.append((notice.message_primary, notice.message_hint)))
    return heard


def statements(connection):
    return [row[0] for row in connection.execute(STATEMENTS).fetchall()]


def run(connection, lines):
    for line in lines:
        connection.execute(line)


def printed(heard):
    (hint,) = [hint for message, hint in heard if "no index" in message]
    return hint.split("\n")[1:]


def complete(connection):
    """No index is missing or broken, and the searches use both."""
    assert statements(connection) == []
    assert one(connection, "select count(*) from gte_small.vector_indexes('docs', 'embedding')") == 1
    assert one(connection, "select count(*) from gte_small.word_indexes('docs', '{content}', 'english')") == 1
    assert one(connection, "select bool_and(indisvalid) from pg_index") is True
    assert one(connection, "select hints from embedding_status('docs')") == []
    heard = heard_from(connection)
    connection.execute("select enable_semantic_search('docs')")
    assert heard == []


@pytest.fixture
def docs(connection):
    connection.execute("set default_text_search_config = 'english'; create table docs (id int primary key, content text); "
                       "insert into docs select i, 'row ' || i from generate_series(1, 200) i")
    return connection


def test_the_statements_make_what_enabling_would_have_made(docs):
    heard = heard_from(docs)
    docs.execute(ENABLE)
    lines = printed(heard)
    assert one(docs, "select count(*) from pg_indexes where tablename = 'docs'") == 1
    assert lines == statements(docs)
    assert sum(line.startswith("CREATE INDEX CONCURRENTLY") for line in lines) == 2
    # Searches are exact until then.
    docs.execute("call embed_backfill('docs')")
    assert one(docs, "select content from search_docs('row 7', 1)") == "row 7"
    assert one(docs, "select (item).content from hybrid_docs('row 7', 1)") == "row 7"
    run(docs, lines)
    complete(docs)
    docs.execute("select disable_semantic_search('docs')")
    assert one(docs, "select count(*) from pg_indexes where tablename = 'docs'") == 1


def test_a_new_column_rewrites_no_table(docs):
    before = one(docs, "select pg_relation_filenode('docs')")
    docs.execute(ENABLE)
    assert one(docs, "select pg_relation_filenode('docs')") == before


def test_by_size(connection):
    connection.execute("set default_text_search_config = 'english'; create table docs (id int primary key, content text, blob text); "
                       "alter table docs alter blob set storage external; "
                       "insert into docs select i, null, repeat('x', 1 << 20) from generate_series(1, 130) i")
    heard = heard_from(connection)
    connection.execute("select enable_semantic_search('docs')")
    run(connection, printed(heard))
    complete(connection)
    connection.execute("select disable_semantic_search('docs')")
    connection.execute("select enable_semantic_search('docs', index_options => '{\"build\": \"now\"}')")
    complete(connection)


def test_partitions_get_theirs_one_by_one(connection):
    connection.execute("""set default_text_search_config = 'english';
        create table docs (id int, content text) partition by range (id);
        create table "docs A" partition of docs for values from (0) to (100);
        create table docs_b (content text, gone int, id int); alter table docs_b drop column gone;
        alter table docs attach partition docs_b for values from (100) to (200);
        create table docs_sub partition of docs for values from (200) to (400) partition by range (id);
        create table docs_sub_1 partition of docs_sub for values from (200) to (300);
        create table docs_sub_2 partition of docs_sub for values from (300) to (400);
        insert into docs select i, 'row ' || i from generate_series(1, 399) i""")
    heard = heard_from(connection)
    connection.execute(ENABLE)
    lines = printed(heard)
    assert sum("CONCURRENTLY" in line for line in lines) == 8
    assert sum(" ON ONLY " in line for line in lines) == 4
    assert sum("ATTACH PARTITION" in line for line in lines) == 10
    connection.execute("call embed_backfill('docs')")
    # An interrupted run goes on where it was.
    run(connection, lines[:7])
    rest = statements(connection)
    assert len(rest) < len(lines) and lines[0] not in rest
    run(connection, rest)
    complete(connection)
    assert one(connection, "select content from search_docs('row 350', 1)") == "row 350"


def test_a_foreign_partition_is_passed_over(connection):
    connection.execute("""create foreign data wrapper nowhere; create server elsewhere foreign data wrapper nowhere;
        create table docs (id int, content text) partition by range (id);
        create table docs_a partition of docs for values from (0) to (100);
        select enable_semantic_search('docs', with_index => false);
        create foreign table docs_f partition of docs for values from (100) to (200) server elsewhere""")
    run(connection, [row[0] for row in connection.execute(
        "select gte_small.statements_to_make('docs', 'hnsw', '{content}', 'embedding', 'english', '{}', null)").fetchall()])
    assert one(connection, "select count(*) from gte_small.vector_indexes('docs', 'embedding')") == 1
    assert one(connection, "select bool_and(indisvalid) from pg_index") is True


def test_equal_vectors_get_the_second_index(docs):
    docs.execute("insert into docs select i, 'the same' from generate_series(1001, 1150) i")
    docs.execute(ENABLE)
    assert sum("vector_l2_ops" in line for line in statements(docs)) == 0
    docs.execute("call embed_backfill('docs')")
    lines = statements(docs)
    assert sum("vector_l2_ops" in line for line in lines) == 1
    run(docs, lines)
    complete(docs)


def test_options_are_kept_for_the_statements(docs):
    docs.execute("select enable_semantic_search('docs', index_options => '{\"build\": \"later\", \"m\": 24, \"type\": \"halfvec\"}')")
    lines = statements(docs)
    assert any("halfvec_ip_ops) WITH (m=24)" in line for line in lines)
    docs.execute("call embed_backfill('docs')")
    run(docs, lines)
    complete(docs)
    assert one(docs, "select content from search_docs('row 7', 1)") == "row 7"
    assert one(docs, "select count(*) from pg_proc where prosrc ~ 'half_distance' and proname = 'query_docs'") == 2


def test_an_index_with_other_options_is_replaced_without_a_lock(docs):
    docs.execute("select enable_semantic_search('docs')")
    docs.execute("call embed_backfill('docs')")
    heard = heard_from(docs)
    docs.execute("select enable_semantic_search('docs', index_options => '{\"build\": \"later\", \"m\": 24}')")
    lines = printed(heard)
    assert [line.split()[0:3] for line in lines] == [["CREATE", "INDEX", "CONCURRENTLY"], ["COMMENT", "ON", "INDEX"], ["DROP", "INDEX", "CONCURRENTLY"]]
    run(docs, lines)
    complete(docs)


def test_hostile_names(connection):
    connection.execute("""set default_text_search_config = 'english'; create schema "S.1;"; create table "S.1;"."it's ""a"" table" ("the; text" text, id int)""")
    target = """'"S.1;"."it''s ""a"" table"'"""
    connection.execute(f"""select enable_semantic_search({target}, '{{"the; text"}}', 'e m''b', index_options => '{{"build": "later"}}')""")
    found = f"select gte_small.index_statements({target}, 'e m''b')"
    lines = [row[0] for row in connection.execute(found).fetchall()]
    assert len(lines) == 4
    run(connection, lines)
    assert connection.execute(found).fetchall() == []


def test_long_names_are_cut_and_never_taken_twice(connection):
    table = "t" * 60
    connection.execute(f"set default_text_search_config = 'english'; create table {table} (id int, content text); create table {table[:55]}_x (id int); "
                       f"select enable_semantic_search('{table}', search_function => 'query_t', index_options => '{{\"build\": \"later\"}}')")
    found = f"select gte_small.index_statements('{table}', 'embedding')"
    run(connection, [row[0] for row in connection.execute(found).fetchall()])
    assert connection.execute(found).fetchall() == []


@pytest.mark.parametrize("value", ['"soon"', "true", "1"])
def test_other_values_are_refused(docs, value):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="build"):
        docs.execute(f"select enable_semantic_search('docs', index_options => '{{\"build\": {value}}}')")
