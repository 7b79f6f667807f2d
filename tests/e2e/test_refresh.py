"""refresh_semantic_search(): after an update it renews what an earlier version made in users' schemas, and says what."""

import psycopg
import pytest

from measure import SOUND_PGVECTOR, one

FUNCTIONS = ("select array_agg(p.oid::regprocedure::text order by 1) from pg_proc p "
             "where p.pronamespace = 'public'::regnamespace and p.proname ~ '_(docs|parts)$'")
REFRESH = "select relation::text, embedding::text, renewed from refresh_semantic_search()"


@pytest.fixture
def updated(server):
    """A database that 0.1.0 made tables in, after ALTER EXTENSION ... UPDATE."""
    database = server.create_database("template0")
    connection = database.connect()
    connection.execute("create extension vector; create extension \"gte-small\" version '0.1.0'")
    connection.execute("create table docs (id int primary key, title text, content text); select enable_semantic_search('docs', '{title,content}');"
                       "create table parts (id int, content text) partition by list (id); create table parts_1 partition of parts default;"
                       "select enable_semantic_search('parts', with_index => false);"
                       "create table by_hand (content text, embedding vector(384));"
                       "create trigger fills before insert or update on by_hand for each row execute function embed_trigger();"
                       "insert into docs values (1, 'a', 'cat'), (2, 'a', 'dog'); insert into parts values (1, 'a cat')")
    connection.execute('alter extension "gte-small" update')
    connection.execute(SOUND_PGVECTOR)
    yield database
    database.drop()


def test_the_old_forms_work_until_then(updated):
    connection = updated.connect()
    assert one(connection, "select id from query_docs(embed(E'a\\ncat'), 0.9) limit 3") == 1
    assert one(connection, "select id from query_docs(E'a\\ncat', 0.9, 3)") == 1
    assert one(connection, "select (item).id from hybrid_docs('cat', 1)") == 1
    (hint,) = one(connection, "select hints from embedding_status('docs')")
    assert "not those of this version" in hint


def test_it_renews_functions_and_indexes_and_says_which(updated):
    connection = updated.connect()
    renewed = connection.execute(REFRESH).fetchall()
    assert {(table, column) for table, column, _ in renewed} == {("docs", "embedding"), ("parts", "embedding")}
    of_docs = [what for table, _, what in renewed if table == "docs"]
    assert "index public.docs_words_idx" in of_docs and "index public.docs_embedding_idx" not in of_docs
    assert "function public.query_docs(text,double precision,integer) (dropped)" in of_docs
    assert "function public.search_docs(text,integer,double precision,jsonb)" in of_docs
    # Enabled without indexes, it gets none.
    assert not any(what.startswith("index") for table, _, what in renewed if table == "parts")
    assert one(connection, "select count(*) from pg_indexes where tablename in ('docs', 'parts')") == 3
    assert len(one(connection, FUNCTIONS)) == 12
    assert one(connection, "select id from search_docs(E'a\\ncat', 1)") == 1
    assert one(connection, "select hints from embedding_status('docs')") == []
    assert connection.execute(REFRESH).fetchall() == []
    # A trigger that was written by hand gets no functions.
    assert one(connection, "select count(*) from pg_proc where proname ~ 'by_hand'") == 0


def test_without_comments_the_old_functions_are_known_by_their_bodies(updated):
    connection = updated.connect()
    connection.execute("do $$ declare f regprocedure; begin for f in select oid::regprocedure from pg_proc where proname ~ '_(docs|parts)$' "
                       "loop execute format('comment on function %s is null', f); end loop; end $$")
    connection.execute(REFRESH)
    assert len(one(connection, FUNCTIONS)) == 12
    connection.execute("select disable_semantic_search('docs'); select disable_semantic_search('parts')")
    assert one(connection, FUNCTIONS) is None


def test_grants_are_kept(updated):
    connection = updated.connect()
    connection.execute("revoke execute on all functions in schema public from public; grant execute on function query_docs(text, float8) to gte_reader")
    connection.execute("grant execute on all functions in schema gte_small to public; grant execute on function vector_negative_inner_product to public")
    connection.execute("grant select on docs to gte_reader, gte_plain")
    connection.execute(REFRESH)
    assert len(updated.connect("gte_reader").execute("select * from query_docs('a cat')").fetchall()) == 2
    for call in ("query_docs('a cat')", "query_docs('a cat', null, 3)", "search_docs('a cat')", "hybrid_docs('a cat')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            updated.connect("gte_plain").execute(f"select * from {call}")


def test_a_table_that_cant_be_renewed_stops_no_other(updated):
    connection = updated.connect()
    connection.execute("create view found as select * from query_docs('a cat', 0.5, 3)")
    heard = []
    connection.add_notice_handler(lambda notice: heard.append((notice.severity_nonlocalized, notice.message_primary)))
    renewed = connection.execute(REFRESH).fetchall()
    assert {table for table, _, _ in renewed} == {"parts"}
    assert [m for severity, m in heard if severity == "WARNING" and "docs" in m and "was not renewed" in m]
    assert one(connection, "select count(*) from found") == 2


def test_tables_of_other_owners_are_named(updated):
    admin = updated.connect()
    admin.execute("grant all on schema public to gte_owner; alter table docs owner to gte_owner; "
                  "do $$ declare f regprocedure; begin for f in select oid::regprocedure from pg_proc where proname ~ '_docs$' "
                  "loop execute format('alter function %s owner to gte_owner', f); end loop; end $$")
    owner = updated.connect("gte_owner")
    heard = []
    owner.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    assert {row[0] for row in owner.execute(REFRESH).fetchall()} == {"docs"}
    assert any("parts" in message and "other owners" in message for message in heard)
    # A superuser renews the rest, and leaves the functions with their owners.
    assert {row[0] for row in admin.execute(REFRESH).fetchall()} == {"parts"}
    assert one(admin, "select bool_and(pg_get_userbyid(proowner) = 'gte_owner') from pg_proc where proname ~ '_docs$'")


def test_document_search_is_renewed_too(connection):
    connection.execute("create table manuals (id int primary key, content text); select enable_document_search('manuals'); "
                       "insert into manuals values (1, 'a cat sat on the mat')")
    assert connection.execute(REFRESH).fetchall() == []
    connection.execute("do $$ declare f regprocedure := (select oid from pg_proc where proname = 'query_manuals'); "
                       "begin execute format('drop function %s', f); end $$")
    renewed = connection.execute(REFRESH).fetchall()
    assert [row[:2] for row in renewed] == [("manuals", None)] and "query_manuals" in renewed[0][2]
    assert one(connection, "select (document).id from query_manuals('a cat')") == 1
