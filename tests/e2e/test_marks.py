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
