"""Document search in a database with Citus: local tables as everywhere, distributed ones are refused before anything is made."""

import pathlib
import re

import psycopg
import pytest

SCALING = pathlib.Path(__file__).resolve().parents[2] / "docs" / "scaling.md"


def test_local_documents_are_searched(owner):
    owner.run("create table citus_manuals (id int primary key, title text, body text)")
    owner.run("select enable_document_search('citus_manuals', '{body}')")
    owner.run("insert into citus_manuals select i, 'Manual ' || i, repeat('This is sentence of manual ' || i || '. ', 60) from generate_series(1, 5) i")
    owner.run("insert into citus_manuals values (9, 'Bills', 'Invoices are due within thirty days.')")
    assert owner.value("select (document).id from query_citus_manuals('when do I have to pay?', match_count => 1)") == 9
    owner.run("select enable_document_search('citus_manuals', '{body}')")
    owner.run("select disable_document_search('citus_manuals')")
    assert owner.value("select count(*) from pg_proc where proname like '%citus_manuals%'") == 0
    assert not [text for severity, text, _ in owner.notices if severity == "WARNING"]


def test_distributed_documents_are_refused(owner):
    owner.run("create table citus_books (id int primary key, body text)")
    owner.run("select create_distributed_table('citus_books', 'id', shard_count => 4)")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="distributed by Citus"):
        owner.run("select enable_document_search('citus_books', '{body}')")
    assert owner.value("select count(*) from pg_class where relname like 'citus_books_chunks%'") == 0


def test_long_texts_by_the_statements_of_the_page(db):
    section = SCALING.read_text(encoding="utf-8").partition("### Long texts")[2]
    statements = re.search(r"```sql\n(.*?)```", section, re.DOTALL)[1].partition("insert into manuals")[0]
    # Each in a transaction of its own, as in psql.
    for statement in re.split(r";\n(?=create |select |set |$)", statements):
        db.run(statement)
    db.run("insert into manuals values (7, 1, 'Invoices are due within thirty days.'), (8, 2, repeat('The office dog is called Ada. ', 200))")
    assert db.rows("select tenant, id from search_parts('when do I have to pay?', 1)") == [(7, 1)]
    assert db.value("select count(*) from parts where id = 2") > 2
    db.run("update manuals set body = 'Bills are paid in May.' where tenant = 8 and id = 2")
    assert db.rows("select ordinal, content, embedding is not null from parts where id = 2") == [(1, "Bills are paid in May.", True)]
    db.run("delete from manuals where tenant = 7")
    assert db.column("select distinct id from parts") == [2]
