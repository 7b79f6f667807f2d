"""embedding_status tells of columns without a trigger, of tables that inherit, of dead rows, indexes that were not completed
and an old pgvector. Each hint has the statement that mends it."""

import psycopg
import pytest

from backfills import make
from measure import one
from test_status import status


def hint(connection, words, table="docs"):
    """The statement of the one hint with these words."""
    found = [h for h in status(connection, table)["hints"] if words in h]
    assert len(found) == 1, status(connection, table)["hints"]
    return found[0].partition(": ")[2]


def no_hint(connection, words, table="docs"):
    assert not [h for h in status(connection, table)["hints"] if words in h]


def filled(connection, rows=10, **options):
    connection.execute("create table docs (id int primary key, content text); select enable_semantic_search('docs')")
    connection.execute(f"insert into docs select i, 'text ' || i from generate_series(1, {rows}) i")


# --- columns without a trigger ---


def test_a_dropped_trigger(connection):
    filled(connection)
    connection.execute("drop trigger zzz_gte_small_embedding on docs")
    told = status(connection)
    assert (told["state"], told["rows"], told["embedded"], told["trigger_enabled"]) == ("no trigger", 10, 10, False)
    assert told["missing"] is None and told["stale"] is None and told["index_present"]
    connection.execute(hint(connection, "no trigger fills"))
    connection.execute("insert into docs values (11, 'new')")
    assert one(connection, "select embedding is not null from docs where id = 11")
    assert status(connection)["state"] == "unknown", "nobody knows what was written meanwhile"


def test_a_dropped_trigger_of_several_columns_and_without_an_index(connection):
    connection.execute("create table docs (body text, title text, author text); select enable_semantic_search('docs', 'title, body')")
    connection.execute("drop trigger zzz_gte_small_embedding on docs")
    assert "'{title,body}'" in hint(connection, "no trigger fills")
    connection.execute("drop index docs_embedding_idx")
    told = hint(connection, "no trigger fills")
    assert "'{title,body}'" in told and "with_index => false" in told
    connection.execute(told)
    assert one(connection, "select content from embedding_columns('docs')") == ["title", "body"]


def test_tables_that_were_swapped_by_renaming(connection):
    filled(connection)
    connection.execute("create table docs_new (like docs including all); insert into docs_new select * from docs;"
                       "alter table docs rename to docs_old; alter table docs_new rename to docs")
    told = status(connection)
    assert (told["state"], told["embedded"]) == ("no trigger", 10)
    statement = hint(connection, "no trigger fills")
    assert "enable_semantic_search('public.docs'" in statement
    # The functions of the name are those of the old table.
    assert "enable_semantic_search('public.docs_old'" in hint(connection, "search functions", "docs_old")
    connection.execute(statement)
    for table in ("docs", "docs_old"):
        for told in status(connection, table)["hints"]:
            if "enable_semantic_search" in told:
                connection.execute(told.partition(": ")[2])
        no_hint(connection, "enable_semantic_search", table)
    connection.execute("insert into docs values (50, 'only in the new table')")
    assert one(connection, "select id from search_docs('only in the new table', 1)") == 50


def test_a_detached_partition(connection):
    connection.execute(
        "create table docs (id int, content text) partition by range (id); create table docs_1 partition of docs for values from (0) to (100);"
        "select enable_semantic_search('docs'); insert into docs select i, 'text ' || i from generate_series(1, 10) i;"
        "alter table docs detach partition docs_1")
    told = status(connection, "docs_1")
    assert (told["state"], told["embedded"]) == ("no trigger", 10)
    connection.execute(hint(connection, "no trigger fills", "docs_1"))
    assert status(connection, "docs_1")["trigger_enabled"]


def test_a_table_of_another_use_has_no_such_column(connection):
    connection.execute(
        "create table plain (content text, other vector(384)); create index on plain using hnsw (other vector_cosine_ops);"
        "create table own (content text, e vector(384) generated always as (embed(content)) stored); create index on own using hnsw (e vector_ip_ops);"
        "create table short (content text, e vector(3)); create index on short using hnsw (e vector_ip_ops)")
    for table in ("plain", "own", "short"):
        assert connection.execute("select * from embedding_status(%s)", [table]).fetchall() == []


def test_a_disabled_search_is_not_reported(connection):
    filled(connection)
    connection.execute("select disable_semantic_search('docs')")
    assert connection.execute("select * from embedding_status('docs')").fetchall() == []


def test_a_column_without_trigger_beside_one_with(connection):
    filled(connection)
    connection.execute("alter table docs add title text; select enable_semantic_search('docs', 'title', 'title_embedding', search_function => 'query_titles');"
                       "drop trigger zzz_gte_small_title_embedding on docs")
    states = dict(connection.execute("select embedding, state from embedding_status('docs')").fetchall())
    assert states == {"embedding": "current", "title_embedding": "no trigger"}


# --- tables that inherit ---


def test_tables_that_inherit(connection):
    filled(connection)
    connection.execute("create table docs_2025 () inherits (docs); create table docs_2026 () inherits (docs);"
                       "insert into docs_2025 (id, content) values (101, 'text of a child')")
    told = hint(connection, "inherit")
    assert told.count("enable_semantic_search") == 2
    assert status(connection)["rows"] == 10
    child = status(connection, "docs_2025")
    assert (child["state"], child["rows"], child["embedded"]) == ("no trigger", 1, 0)
    connection.execute(told)
    no_hint(connection, "inherit")
    assert status(connection, "docs_2025")["missing"] == 1


def test_partitions_are_not_tables_that_inherit(connection):
    connection.execute("create table docs (id int, content text) partition by range (id); create table docs_1 partition of docs for values from (0) to (100);"
                       "select enable_semantic_search('docs')")
    no_hint(connection, "inherit")
    assert status(connection, "docs_1")["state"] == "empty"


# --- indexes ---


def test_many_dead_rows(connection):
    filled(connection, 1500)
    connection.execute("analyze docs; select pg_stat_force_next_flush()")
    no_hint(connection, "dead rows")
    connection.execute("update docs set id = id + 10000; select pg_stat_force_next_flush()")
    for _ in range(100):
        if one(connection, "select pg_stat_get_dead_tuples('docs'::regclass)") >= 1500:
            break
        connection.execute("select pg_stat_clear_snapshot(), pg_sleep(0.1)")
    connection.execute(hint(connection, "dead rows"))
    connection.execute("select pg_stat_force_next_flush()")
    for _ in range(100):
        if one(connection, "select pg_stat_get_dead_tuples('docs'::regclass)") == 0:
            break
        connection.execute("select pg_stat_clear_snapshot(), pg_sleep(0.1)")
    no_hint(connection, "dead rows")


def test_an_index_that_was_not_completed(database, connection):
    make(connection, 10)
    connection.execute("call embed_backfill('docs')")
    other = database.connect()
    connection.execute("set statement_timeout = '300ms'")
    with other.transaction():
        other.execute("insert into docs values (12, 'x')")
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("create index concurrently broken on docs using hnsw (embedding vector_ip_ops)")
    connection.execute("reset statement_timeout")
    told = hint(connection, "not completed")
    assert not status(connection)["index_present"]
    connection.execute(told)
    assert status(connection)["index_present"]
    no_hint(connection, "not completed")


@pytest.mark.parametrize("version, told", [("0.8.0", True), ("0.8.3", True), ("0.8.4", False), ("0.9", False), ("0.10.0", False), ("1.0.0-dev", False), ("odd", False)])
def test_an_old_pgvector(connection, version, told):
    filled(connection)
    with connection.transaction(force_rollback=True):
        connection.execute("update pg_extension set extversion = %s where extname = 'vector'", [version])
        if told:
            statement = hint(connection, "pgvector " + version)
            assert statement == "ALTER EXTENSION vector UPDATE; REINDEX INDEX public.docs_embedding_idx"
            connection.execute(statement.partition("; ")[2])
        else:
            no_hint(connection, "pgvector")


def test_a_table_without_an_index_needs_no_other_pgvector(connection):
    make(connection, 10)
    with connection.transaction(force_rollback=True):
        connection.execute("update pg_extension set extversion = '0.8.0' where extname = 'vector'")
        no_hint(connection, "pgvector")


# --- all tables at once ---


def test_the_status_of_all_tables(connection):
    filled(connection)
    connection.execute("create view shown as select * from docs")
    told = connection.execute("select c.oid::regclass::text, s.state from pg_class c cross join lateral embedding_status(c.oid) s").fetchall()
    assert told == [("docs", "current")]


def test_the_indexes_of_a_large_table(connection):
    make(connection, 10)
    connection.execute("call embed_backfill('docs')")
    connection.execute("create or replace function gte_small.is_large(target regclass) returns bool language sql as 'select true'")
    for statement in hint(connection, "searches read the whole table").splitlines():
        assert statement.endswith(";")
        connection.execute(statement)
    assert status(connection)["index_present"] and status(connection)["hints"] == []


def test_a_dropped_trigger_of_a_table_of_chunks(connection):
    connection.execute("create table manuals (id int primary key, body text); select enable_document_search('manuals', 'body');"
                       "insert into manuals values (1, 'how to open the door')")
    chunks = one(connection, "select conrelid::regclass::text from pg_constraint where confrelid = 'manuals'::regclass")
    connection.execute(f"drop trigger zzz_gte_small_embedding on {chunks}")
    connection.execute(hint(connection, "no trigger fills", chunks))
    assert status(connection, chunks)["trigger_enabled"]


# --- the full-text index, and texts that are gone ---


def test_a_dropped_words_index(connection):
    filled(connection)
    connection.execute("drop index docs_words_idx")
    connection.execute(hint(connection, "hybrid searches read"))
    assert one(connection, "select count(*) from pg_index where indrelid = 'docs'::regclass") == 3
    no_hint(connection, "hybrid searches read")


def test_without_hybrid_search_there_is_no_hint_about_words(connection):
    filled(connection)
    connection.execute("drop index docs_words_idx")
    for function in connection.execute("select oid::regprocedure::text from pg_proc where proname = 'hybrid_docs'").fetchall():
        connection.execute(f"drop function {function[0]}")
    no_hint(connection, "hybrid searches read")


def test_the_last_text_is_gone(connection):
    filled(connection)
    connection.execute("alter table docs drop column content")
    with pytest.raises(psycopg.Error):
        connection.execute("insert into docs values (11)")
    connection.execute(hint(connection, "writes fail"))
    connection.execute("insert into docs (id, content) values (11, 'new')")
    assert one(connection, "select embedding is not null from docs where id = 11")
