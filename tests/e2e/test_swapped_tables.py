"""A table that is replaced by renames: its search functions belong to the old table, until enabling takes them over."""

import psycopg
import pytest

from measure import one

SWAP = "alter table docs rename to docs_old; alter table docs_new rename to docs"
FUNCTIONS = "select array_agg(p.oid::regprocedure::text order by 1) from pg_proc p where p.proname ~ '^(query|search|hybrid)_docs{}$'"


def heard_from(connection):
    heard = []
    connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    return heard


def wrong(connection, table):
    return one(connection, "select gte_small.functions_wrong(%(table)s::regclass, '{content}', 'embedding', c.note) "
               "from embedding_columns(%(table)s::regclass) c", {"table": table})


def hints(connection, table):
    return one(connection, f"select hints from embedding_status('{table}')")


@pytest.fixture
def swapped(connection):
    connection.execute("create table docs (id int primary key, content text); select enable_semantic_search('docs'); "
                       "create table docs_new (id int primary key, content text); select enable_semantic_search('docs_new'); "
                       "insert into docs values (1, 'an old cat'); insert into docs_new values (2, 'a new dog'); "
                       "revoke execute on function query_docs(text, float8) from public; " + SWAP)
    return connection


def test_status_prints_the_statement_and_it_mends(swapped):
    (hint,) = hints(swapped, "docs")
    assert "SELECT enable_semantic_search('public.docs'" in hint
    assert "query_docs is still that of table public.docs_old" in wrong(swapped, "docs")
    heard = heard_from(swapped)
    swapped.execute("select enable_semantic_search('docs')")
    assert any("docs_old" in message and "query_docs" in message for message in heard)
    assert hints(swapped, "docs") == []
    assert one(swapped, "select content from search_docs('dog', 1)") == "a new dog"
    assert one(swapped, "select content from query_docs('dog', null, 1)") == "a new dog"
    assert one(swapped, "select (item).content from hybrid_docs('dog', 1)") == "a new dog"
    assert len(one(swapped, FUNCTIONS.format(""))) == 6 and one(swapped, FUNCTIONS.format("_new")) is None
    # Rights stay with the name.
    assert one(swapped, "select has_function_privilege('gte_plain', 'query_docs(text, float8)', 'execute')") is False
    heard.clear()
    swapped.execute("select enable_semantic_search('docs')")
    assert heard == []


def test_the_old_table_gets_functions_of_its_own(swapped):
    swapped.execute("select enable_semantic_search('docs')")
    assert "no search functions" in wrong(swapped, "docs_old") and len(hints(swapped, "docs_old")) == 1
    swapped.execute("select enable_semantic_search('docs_old')")
    assert hints(swapped, "docs_old") == [] and hints(swapped, "docs") == []
    assert one(swapped, "select content from search_docs_old('cat', 1)") == "an old cat"
    assert one(swapped, "select content from search_docs('dog', 1)") == "a new dog"


def test_the_old_table_first(swapped):
    swapped.execute("select enable_semantic_search('docs_old'); select enable_semantic_search('docs')")
    assert hints(swapped, "docs_old") == [] and hints(swapped, "docs") == []
    assert one(swapped, "select content from search_docs_old('cat', 1)") == "an old cat"
    assert one(swapped, "select content from query_docs('dog', null, 1)") == "a new dog"


def test_refresh_mends_both(swapped):
    swapped.execute("select * from refresh_semantic_search()")
    assert hints(swapped, "docs") == []
    assert one(swapped, "select content from query_docs('dog', null, 1)") == "a new dog"
    swapped.execute("select * from refresh_semantic_search()")
    assert hints(swapped, "docs_old") == []


def test_a_partitioned_table_in_its_place(connection):
    connection.execute("create table docs (id int primary key, content text); select enable_semantic_search('docs'); "
                       "create table docs_new (id int primary key, content text) partition by range (id); "
                       "create table docs_1 partition of docs_new for values from (0) to (100); "
                       "select enable_semantic_search('docs_new', with_index => false, search_function => 'query_docs_new'); "
                       "insert into docs_new values (2, 'a new dog'); " + SWAP)
    connection.execute("select enable_semantic_search('docs', search_function => 'query_docs')")
    assert hints(connection, "docs") == []
    assert one(connection, "select content from query_docs('dog', null, 1)") == "a new dog"


def test_a_function_that_searches_its_own_table_is_left_alone(connection):
    connection.execute("create table docs (content text); create table notes (content text); "
                       "select enable_semantic_search('notes', search_function => 'query_docs')")
    with pytest.raises(psycopg.errors.DuplicateFunction, match="is not gte-small's"):
        connection.execute("select enable_semantic_search('docs')")


def test_a_function_of_another_owner_is_left_alone(database, connection):
    connection.execute("grant create on schema public to gte_owner, gte_plain")
    owner, plain = database.connect("gte_owner"), database.connect("gte_plain")
    owner.execute("create table docs (content text); select enable_semantic_search('docs'); alter table docs rename to docs_old")
    plain.execute("create table docs (content text)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner of function"):
        plain.execute("select enable_semantic_search('docs')")
    # For a superuser it is not the table's owner's either.
    with pytest.raises(psycopg.errors.DuplicateFunction, match="is not gte-small's"):
        connection.execute("select enable_semantic_search('docs')")


def test_what_uses_a_function_is_named(swapped):
    swapped.execute("create view found as select * from query_docs('cat', null, 3)")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="because other objects use it") as error:
        swapped.execute("select enable_semantic_search('docs')")
    assert "view public.found" in error.value.diag.message_detail and "Nothing was changed" in error.value.diag.message_detail
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="because other objects use it"):
        swapped.execute("select disable_semantic_search('docs_old')")
