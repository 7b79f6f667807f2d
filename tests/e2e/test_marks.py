"""Which functions are gte-small's: those with its mark, or without a comment those with its body. Never a user's own."""

import psycopg
import pytest

from measure import one

OF_DOCS = ("select array_agg(p.oid::regprocedure::text order by 1) from pg_proc p "
           "where p.pronamespace = 'public'::regnamespace and p.proname in ('query_docs', 'hybrid_docs', 'search_docs')")
DROP_COMMENTS = """do $$ declare f regprocedure; begin
  for f in select p.oid::regprocedure from pg_proc p where proname in ('query_docs', 'hybrid_docs', 'search_docs')
  loop execute format('comment on function %s is null', f); end loop; end $$"""


@pytest.fixture
def docs(connection):
    connection.execute("create table docs (id int, content text)")
    return connection


def test_disable_drops_no_function_of_a_table_that_was_never_enabled(connection, server):
    connection.execute(server.chunks_sql.read_text())
    connection.execute("select disable_semantic_search('documents')")
    assert one(connection, "select count(*) from query_documents('x')") == 0


def test_a_users_function_that_depends_on_the_extension_stays(docs):
    docs.execute("create function recent_docs() returns setof docs language sql as 'select * from docs';"
                 'alter function recent_docs() depends on extension "gte-small";'
                 "comment on function recent_docs() is 'gte-small: mine'")
    docs.execute("select enable_semantic_search('docs')")
    docs.execute("select disable_semantic_search('docs')")
    assert docs.execute("select * from recent_docs()").fetchall() == []
    assert one(docs, OF_DOCS) is None


def test_without_comments_functions_are_known_by_their_bodies(docs):
    docs.execute("select enable_semantic_search('docs', text_search => 'german')")
    docs.execute(DROP_COMMENTS)
    made = one(docs, OF_DOCS)
    docs.execute("select enable_semantic_search('docs', text_search => 'german')")
    assert one(docs, OF_DOCS) == made
    docs.execute(DROP_COMMENTS)
    docs.execute("select disable_semantic_search('docs')")
    assert one(docs, OF_DOCS) is None


@pytest.mark.parametrize("comment", ["null", "'mine'", "'gte-small: for other: rows'"])
def test_a_users_function_of_the_same_signature_is_refused_and_stays(docs, comment):
    docs.execute("create function query_docs(search text, match_threshold float8) returns setof docs "
                 "language sql as 'select * from docs';"
                 f"comment on function query_docs(text, float8) is {comment}")
    with pytest.raises(psycopg.errors.DuplicateFunction, match="is not gte-small's") as error:
        docs.execute("select enable_semantic_search('docs')")
    assert "nothing was made" in error.value.diag.message_detail
    docs.execute("select disable_semantic_search('docs')")
    assert one(docs, OF_DOCS) == ["query_docs(text,double precision)"]


def test_functions_of_another_column_stay(docs):
    docs.execute("alter table docs add column title text; select enable_semantic_search('docs')")
    docs.execute("select enable_semantic_search('docs', '{title}', 'title_embedding', search_function => 'query_titles')")
    docs.execute("select disable_semantic_search('docs', 'title_embedding')")
    assert "query_docs(text,double precision)" in one(docs, OF_DOCS)
    assert one(docs, "select count(*) from pg_proc where proname in ('query_titles', 'hybrid_titles')") == 0


def test_the_mark_follows_a_renamed_column(docs):
    docs.execute("select enable_semantic_search('docs'); insert into docs values (1, 'a cat')")
    docs.execute("alter table docs rename embedding to vec; select enable_semantic_search('docs', embedding => 'vec')")
    assert one(docs, "select count(*) from query_docs('a cat', 0.9)") == 1
    docs.execute("select disable_semantic_search('docs', 'vec')")
    assert one(docs, OF_DOCS) is None


def test_a_table_that_was_dropped_leaves_nothing_in_the_way(docs):
    docs.execute("select enable_semantic_search('docs'); drop table docs cascade; create table docs (id int, content text)")
    docs.execute("select enable_semantic_search('docs'); select disable_semantic_search('docs')")
    assert one(docs, OF_DOCS) is None


def test_a_table_with_the_name_of_a_search_function_keeps_its_own(docs):
    docs.execute("create table hybrid_docs (id int primary key, content text); select enable_semantic_search('hybrid_docs'); "
                 "select enable_semantic_search('docs'); select enable_semantic_search('docs')")
    assert docs.execute("select * from search_hybrid_docs('x')").fetchall() == []
    assert docs.execute("select * from refresh_semantic_search()").fetchall() == []
    docs.execute("select disable_semantic_search('docs')")
    assert docs.execute("select * from search_hybrid_docs('x')").fetchall() == []


def test_another_roles_function_with_our_mark_is_in_nobodys_way(database, docs):
    docs.execute("create schema own authorization gte_owner; create schema evil authorization gte_plain; grant usage on schema own to gte_plain")
    owner, plain = database.connect("gte_owner"), database.connect("gte_plain")
    owner.execute("create table own.d (id int primary key, content text)")
    plain.execute("create function evil.f() returns setof own.d language sql as 'select null::own.d';"
                  "comment on function evil.f() is 'gte-small: for embedding: x'")
    owner.execute("select enable_semantic_search('own.d')")
    assert owner.execute("select * from refresh_semantic_search()").fetchall() == []
    assert docs.execute("select * from refresh_semantic_search()").fetchall() == []
    owner.execute("select disable_semantic_search('own.d')")
    assert one(docs, "select count(*) from pg_proc where oid = 'evil.f()'::regprocedure") == 1


def test_a_renamed_table_keeps_its_privileges(docs):
    docs.execute("select enable_semantic_search('docs'); revoke execute on function search_docs, hybrid_docs, query_docs(text, float8), "
                 "query_docs(text, float8, int, jsonb) from public; grant execute on function hybrid_docs to gte_reader; "
                 "alter table docs rename to papers; select enable_semantic_search('papers')")
    allowed = {row[0]: row[1:] for row in docs.execute(
        "select oid::regprocedure::text, has_function_privilege('gte_plain', oid, 'execute'), has_function_privilege('gte_reader', oid, 'execute') "
        "from pg_proc where proname ~ '_papers$'").fetchall()}
    assert len(allowed) == 6
    for function, rights in allowed.items():
        expected = (True, True) if "(vector" in function else (False, function.startswith("hybrid"))
        assert rights == expected, function


def test_default_privileges_do_not_come_back(docs):
    docs.execute("alter default privileges in schema public grant execute on functions to gte_reader; select enable_semantic_search('docs'); "
                 "revoke execute on function search_docs from public, gte_reader; alter table docs add column x int; select enable_semantic_search('docs')")
    assert one(docs, "select has_function_privilege('gte_reader', 'search_docs(text, int, float8, jsonb)', 'execute')") is False


def test_quoted_identifiers_change_nothing(docs):
    docs.execute("select enable_semantic_search('docs'); set quote_all_identifiers = on; select enable_semantic_search('docs')")
    assert docs.execute("select * from refresh_semantic_search()").fetchall() == []
    docs.execute("insert into docs select i, 'E' || i || ' and more' from generate_series(4700, 4900) i")
    with docs.transaction():
        docs.execute("set local enable_seqscan = off")
        docs.execute("select * from hybrid_docs('E4711')")
        assert one(docs, "select pg_stat_get_xact_numscans('docs_words_idx'::regclass)") >= 1
    docs.execute("select disable_semantic_search('docs')")
    assert one(docs, OF_DOCS) is None
