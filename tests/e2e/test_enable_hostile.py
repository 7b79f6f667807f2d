"""enable_semantic_search with hostile objects, mistakes and concurrent calls."""

import threading

import psycopg
import pytest

from measure import one
from test_enable import note, objects


def test_names_are_never_read_as_sql(server, connection):
    """A dump restores with check_function_bodies off. A name that closes a dollar quote would then run as the caller."""
    connection.execute("set check_function_bodies = off; create role gte_rises")
    try:
        evil = '$query$;alter role gte_rises superuser;select $query$'
        connection.execute(f'create schema "{evil[:40]}"; create table "{evil[:40]}"."$body$;$sql$" (id serial, "{evil}" text, e text)')
        connection.execute("select enable_semantic_search(%s, array[%s]::name[], '$sql$ $body$ $$')",
                           [f'"{evil[:40]}"."$body$;$sql$"', evil])
        table = f'"{evil[:40]}"."$body$;$sql$"'
        connection.execute(f'insert into {table} ("{evil}") values (%s)', ["a cat"])
        assert one(connection, f'select "{evil}" from "{evil[:40]}"."query_$body$;$sql$"(%s, 0.9, 1)', ["a cat"]) == "a cat"
        assert one(connection, f'select full_text_rank from "{evil[:40]}"."hybrid_$body$;$sql$"(%s)', ["cat"]) == 1
        assert not one(connection, "select rolsuper from pg_roles where rolname = 'gte_rises'")
    finally:
        server.execute("drop role gte_rises")


def test_without_standard_conforming_strings(database):
    for call in ["select enable_semantic_search('docs')", "select * from embedding_columns('docs')", "select * from embedding_status('docs')",
                 "call embed_backfill('docs')", "call embed_backfill('docs', force => true)", "select * from embed_verify('docs')",
                 "select (item).content from hybrid_docs('back\\slash')", "select disable_semantic_search('docs')"]:
        connection = database.connect()
        connection.execute("set standard_conforming_strings = off; set escape_string_warning = off; create table if not exists docs (content text)")
        connection.execute(call)
    assert one(connection, "select count(*) from pg_proc where proname like '%\\_docs'") == 0


def test_names_that_differ_beyond_the_trigger_s(connection):
    first, second = "e" * 55 + "_A", "e" * 55 + "_B"
    connection.execute("create table docs (a text, b text)")
    connection.execute("select enable_semantic_search('docs', '{a}', %s, search_function => 'query_a')", [first])
    connection.execute("select enable_semantic_search('docs', '{b}', %s, search_function => 'query_b')", [second])
    connection.execute("insert into docs values ('x', 'y')")
    assert one(connection, f'select "{first}" = embed(a) and "{second}" = embed(b) from docs')
    for column in (first, second):
        connection.execute("select disable_semantic_search('docs', %s)", [column])
    assert one(connection, "select count(*) from pg_proc where proname ~ '^(query|hybrid)_[ab]$'") == 0


def test_a_foreign_trigger_of_that_name(connection):
    connection.execute("create table docs (content text); create function f() returns trigger language plpgsql as 'begin return new; end'; "
                       "create trigger zzz_gte_small_embedding before insert on docs for each row execute function f()")
    before = objects(connection)
    with pytest.raises(psycopg.errors.DuplicateObject):
        connection.execute("select enable_semantic_search('docs')")
    assert objects(connection) == before


def test_other_columns_make_the_old_embeddings_outdated(connection):
    heard = []
    connection.add_notice_handler(lambda diag: heard.append(diag.message_primary))
    connection.execute("create table docs (a text, b text); select enable_semantic_search('docs', '{a}'); insert into docs values ('x', 'y'); "
                       "select enable_semantic_search('docs', '{b}')")
    assert "table public.docs has embeddings of other columns than these" in heard
    assert note(connection, "docs")["outdated"] is True
    assert one(connection, "select state from embedding_status('docs')") == "stale"
    connection.execute("call embed_backfill('docs', force => true)")
    assert one(connection, "select embedding = embed(b) from docs")
    assert "outdated" not in note(connection, "docs")
    assert one(connection, "select state from embedding_status('docs')") == "current"


def test_a_renamed_embedding_column(connection):
    connection.execute("create table docs (content text); select enable_semantic_search('docs'); insert into docs values ('a cat'); "
                       "alter table docs rename embedding to meaning; select enable_semantic_search('docs', embedding => 'meaning'); "
                       "insert into docs values ('a dog')")
    assert one(connection, "select content from query_docs('a dog', 0.9, 1)") == "a dog"
    assert note(connection, "docs", "meaning")["fingerprint"]
    assert one(connection, "select count(*) from pg_indexes where tablename = 'docs'") == 2
    connection.execute("select disable_semantic_search('docs', 'meaning')")
    assert one(connection, "select count(*) from pg_indexes where tablename = 'docs'") == 0


def test_a_renamed_text_column_and_a_dump_without_comments_keep_one_index(connection):
    connection.execute("create table docs (content text, label varchar(20), code char(4)); select enable_semantic_search('docs', '{content,label,code}'); "
                       "alter table docs rename content to body; select enable_semantic_search('docs', '{body,label,code}')")
    assert one(connection, "select count(*) from pg_indexes where tablename = 'docs'") == 2
    connection.execute("comment on index docs_embedding_idx is null; comment on index docs_words_idx is null; "
                       "comment on trigger zzz_gte_small_embedding on docs is null; select enable_semantic_search('docs', '{body,label,code}')")
    assert one(connection, "select count(*) from pg_indexes where tablename = 'docs'") == 2
    connection.execute("insert into docs values ('x', 'y', 'z')")
    assert one(connection, "select full_text_rank from hybrid_docs('y')") == 1


def test_two_columns_of_the_same_text_share_the_full_text_index(connection):
    connection.execute("create table docs (content text); select enable_semantic_search('docs'); "
                       "select enable_semantic_search('docs', embedding => 'other', search_function => 'query_other')")
    assert one(connection, "select count(*) from pg_indexes where tablename = 'docs' and indexdef like '%gin%'") == 1
    connection.execute("select disable_semantic_search('docs')")
    assert one(connection, "select count(*) from pg_indexes where tablename = 'docs' and indexdef like '%gin%'") == 1
    connection.execute("select disable_semantic_search('docs', 'other')")
    assert one(connection, "select count(*) from pg_indexes where tablename = 'docs'") == 0


def test_a_partition_of_an_enabled_table(connection):
    connection.execute("create table docs (id int, content text) partition by range (id); create table low partition of docs for values from (0) to (10); "
                       "select enable_semantic_search('docs'); select enable_semantic_search('low'); insert into docs values (1, 'a cat')")
    assert one(connection, "select content from query_low('a cat', 0.9, 1)") == "a cat"
    assert one(connection, "select count(*) from pg_indexes where tablename = 'low'") == 2
    connection.execute("select disable_semantic_search('low')")
    assert one(connection, "select count(*) from pg_proc where proname ~ '_low$'") == 0
    connection.execute("insert into docs values (2, 'a dog'); select disable_semantic_search('docs')")
    assert one(connection, "select count(embedding) from docs") == 2


def test_several_sessions_enable_at_once(database, connection):
    connection.execute("create table docs (content text); insert into docs select 'row ' || i from generate_series(1, 50) i")
    problems = []

    def session(number):
        try:
            with psycopg.connect(database.server.cluster.dsn(dbname=database.name), autocommit=True) as own:
                for _ in range(3):
                    own.execute("select enable_semantic_search('docs')")
                    if number == 0:
                        own.execute("select disable_semantic_search('docs')")
        except psycopg.Error as problem:
            problems.append(str(problem))

    threads = [threading.Thread(target=session, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    connection.execute("select enable_semantic_search('docs')")
    assert one(connection, "select count(*) from pg_indexes where tablename = 'docs'") == 2


def test_hidden_rows_keep_what_is_known_of_them(server, database, connection):
    connection.execute("grant create on schema public to gte_owner; set role gte_owner; create table docs (content text, who text); "
                       "select enable_semantic_search('docs'); insert into docs values ('a cat', 'bob'); alter table docs enable row level security; "
                       "alter table docs force row level security; create policy own on docs using (who = current_user); reset role")
    known = note(connection, "docs")
    database.configure("gte_small.model_path", server.tiny_other)
    owner = database.connect("gte_owner")
    owner.execute("select enable_semantic_search('docs')")
    assert note(connection, "docs") == known
    with pytest.raises(psycopg.Error):
        owner.execute("call embed_backfill('docs', force => true)")
    assert note(connection, "docs") == known
    assert one(database.connect(), "select state from embedding_status('docs')") == "stale"


def test_a_new_owner_is_told_what_stands_in_the_way(database, connection):
    connection.execute("grant create on schema public to gte_owner; create table docs (content text); select enable_semantic_search('docs'); "
                       "alter table docs owner to gte_owner")
    owner = database.connect("gte_owner")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as raised:
        owner.execute("select enable_semantic_search('docs')")
    assert "must be owner of function" in raised.value.diag.message_primary and raised.value.diag.message_hint
    # The functions of the former owner can't be dropped; the rest is undone.
    told = []
    owner.add_notice_handler(lambda notice: told.append(notice.message_primary))
    owner.execute("select disable_semantic_search('docs')")
    assert len([said for said in told if "belongs to another role and was left" in said]) == 6
    assert one(connection, "select count(*) from pg_trigger where tgrelid = 'docs'::regclass") == 0
    connection.execute("select enable_semantic_search('docs')")
    owner.execute("select disable_semantic_search('docs')")


def test_no_right_to_create_in_the_schema(database, connection):
    connection.execute("create schema shop; create table shop.docs (content text); alter table shop.docs owner to gte_owner; grant usage on schema shop to gte_owner")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as raised:
        database.connect("gte_owner").execute("select enable_semantic_search('shop.docs')")
    assert raised.value.diag.message_hint == "GRANT CREATE ON SCHEMA shop TO gte_owner;"


def test_inheritance_children_are_warned_of_and_left_out(connection):
    heard = []
    connection.add_notice_handler(lambda diag: heard.append(diag.message_primary))
    connection.execute("create table docs (content text); create table child () inherits (docs); select enable_semantic_search('docs'); "
                       "insert into docs values ('a cat'); insert into child values ('a dog')")
    assert "rows of tables that inherit from public.docs are neither embedded nor searched" in heard
    assert connection.execute("select content from query_docs('a dog', null)").fetchall() == [("a cat",)]
    assert connection.execute("select (item).content from hybrid_docs('dog')").fetchall() == [("a cat",)]


@pytest.mark.parametrize("broken", ['{"functions": 5}', '{"functions": {"a": 1}}', '{"functions": null}', '{"text_search": 7, "search_function": 1}', "{}", "{", "[]"])
def test_a_broken_note_keeps_nobody_from_enabling(connection, broken):
    connection.execute("create table docs (content text); select enable_semantic_search('docs'); insert into docs values ('a cat')")
    connection.execute(psycopg.sql.SQL("comment on trigger zzz_gte_small_embedding on docs is {}").format("gte-small " + broken))
    connection.execute("select enable_semantic_search('docs')")
    connection.execute("select disable_semantic_search('docs')")
    assert one(connection, "select count(*) from pg_trigger where tgrelid = 'docs'::regclass") == 0
