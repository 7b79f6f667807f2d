"""A table that is enabled itself becomes a partition: its trigger is dropped in the same transaction, its index is taken over."""

import psycopg
import pytest

from measure import one

ATTACH = "alter table docs attach partition late for values from (100) to (200)"
STATUS = "select state, missing, hints from embedding_status('{}')"


@pytest.fixture
def docs(connection):
    connection.execute("create table docs (id int primary key, content text) partition by range (id); "
                       "create table early partition of docs for values from (0) to (100); select enable_semantic_search('docs'); "
                       "create table late (id int primary key, content text); select enable_semantic_search('late'); "
                       "insert into docs values (1, 'a cat'); insert into late values (101, 'a dog')")
    return connection


def test_postgresql_refuses_two_triggers_of_one_name(docs):
    with pytest.raises(psycopg.errors.DuplicateObject, match='trigger "zzz_gte_small_embedding" for relation "late" already exists'):
        docs.execute(ATTACH)


def test_without_its_trigger_the_table_is_attached_with_its_index(docs):
    before = docs.execute("select array_agg(c.relfilenode order by 1) from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = 'late'::regclass").fetchone()
    docs.execute(f"begin; drop trigger zzz_gte_small_embedding on late; {ATTACH}; commit")
    # No index was built.
    assert docs.execute("select array_agg(c.relfilenode order by 1) from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = 'late'::regclass").fetchone() == before
    assert docs.execute(STATUS.format("docs")).fetchone() == ("current", 0, [])
    assert docs.execute(STATUS.format("late")).fetchone() == ("current", 0, [])
    docs.execute("insert into docs values (102, 'a cow'); update docs set content = 'two dogs' where id = 101")
    assert one(docs, "select content from search_docs('two dogs', 1)") == "two dogs"
    assert one(docs, "select content from search_late('a cow', 1)") == "a cow"
    assert docs.execute("select * from refresh_semantic_search()").fetchall() == []
    docs.execute("select disable_semantic_search('late'); insert into docs values (103, 'a sheep')")
    assert one(docs, "select content from search_docs('a sheep', 1)") == "a sheep"


def test_disabled_first_it_is_attached_as_well(docs):
    docs.execute(f"select disable_semantic_search('late'); {ATTACH}; insert into docs values (102, 'a cow')")
    assert docs.execute(STATUS.format("docs")).fetchone() == ("current", 0, [])
    assert one(docs, "select content from search_docs('a dog', 1)") == "a dog"


def test_a_detached_partition_is_enabled_again(docs):
    docs.execute("alter table docs detach partition early; select enable_semantic_search('early'); insert into early values (2, 'a cow')")
    assert one(docs, "select content from search_early('a cow', 1)") == "a cow"
    assert docs.execute(STATUS.format("docs")).fetchone() == ("empty", 0, [])


def test_a_parent_is_enabled_over_enabled_partitions(connection):
    connection.execute("create table docs (id int primary key, content text, embedding vector(384)) partition by range (id); "
                       "create table early partition of docs for values from (0) to (100); select enable_semantic_search('early'); "
                       "insert into early values (1, 'a cat'); select enable_semantic_search('docs'); insert into docs values (2, 'a dog')")
    assert one(connection, "select count(*) from pg_trigger where tgrelid = 'early'::regclass and tgparentid <> 0") == 1
    assert one(connection, "select content from search_docs('a dog', 1)") == "a dog"
    assert one(connection, "select content from search_early('a cat', 1)") == "a cat"
    # Nobody knows whose the vectors of all partitions are.
    assert one(connection, "select state from embedding_status('docs')") == "unknown"


def test_a_parent_is_enabled_over_an_enabled_partitioned_partition(connection):
    connection.execute("create table docs (id int primary key, content text, embedding vector(384)) partition by range (id); "
                       "create table sub partition of docs for values from (0) to (200) partition by range (id); "
                       "create table low partition of sub for values from (0) to (100); "
                       "select enable_semantic_search('sub'); select enable_semantic_search('docs'); insert into docs values (2, 'a dog')")
    assert one(connection, "select count(*) from pg_trigger where tgname = 'zzz_gte_small_embedding' and tgparentid = 0") == 1
    assert one(connection, "select content from search_docs('a dog', 1)") == "a dog"
    assert one(connection, "select content from search_sub('a dog', 1)") == "a dog"
    connection.execute("select disable_semantic_search('docs')")
    assert one(connection, "select count(*) from pg_trigger where tgname = 'zzz_gte_small_embedding'") == 0
