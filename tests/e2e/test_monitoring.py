"""The query of docs/operations.md that reports every table: one table that can't be read must not end it."""

import pytest

import docs_page
from conftest import CLONE


@pytest.fixture
def query():
    return docs_page.statements(CLONE / "docs" / "operations.md", "Monitoring")


def test_it_names_what_needs_something(connection, query):
    connection.execute("create table docs (content text); create table fine (content text); create table other (content text)")
    connection.execute("select enable_semantic_search('docs'), enable_semantic_search('fine')")
    assert connection.execute(query).fetchall() == []
    connection.execute("alter table docs disable trigger user; insert into docs values ('a cat')")
    [(table, embedding, rows, missing, _, hints)] = connection.execute(query).fetchall()
    assert (table, embedding, rows, missing) == ("docs", "embedding", 1, 1) and hints


@pytest.mark.parametrize("persistence", ["temporary", "unlogged"])
def test_a_table_of_another_session(database, connection, query, persistence):
    other = database.connect()
    other.execute(f"create {persistence} table theirs (content text)")
    other.execute("select enable_semantic_search('theirs')")
    other.execute("alter table theirs disable trigger user; insert into theirs values ('a cat')")
    connection.execute("create table docs (content text); select enable_semantic_search('docs')")
    connection.execute("alter table docs disable trigger user; insert into docs values ('a cat')")
    found = [row[0] for row in connection.execute(query)]
    assert sorted(found) == (["docs"] if persistence == "temporary" else ["docs", "theirs"])
