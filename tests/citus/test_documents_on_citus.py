"""Document search in a database with Citus: local tables as everywhere, distributed ones are refused before anything is made."""

import psycopg
import pytest


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
