"""What PostgreSQL refuses, told by enabling with a fact, a consequence and an action."""

import psycopg
import pytest

from measure import one

DOCS = "create table docs (id int primary key, content text); "


def refused(connection, statement):
    with pytest.raises(psycopg.Error) as error:
        connection.execute(statement)
    diag = error.value.diag
    return diag.sqlstate, diag.message_primary, diag.message_detail, diag.message_hint


@pytest.mark.parametrize("setup, call, sqlstate", [
    ("create view docs as select 'x'::text as content", "'docs'", "42809"),
    ("create materialized view docs as select 'x'::text as content", "'docs'", "42809"),
    ("create sequence docs", "'docs'", "42809"),
    ("create type docs as (content text)", "'docs'", "42809"),
    ("create foreign data wrapper w; create server s foreign data wrapper w; create foreign table docs (content text) server s", "'docs'", "42809"),
    ("", "'pg_class'", "42809"),
    ("", "'information_schema.sql_features', 'feature_name'", "42809"),
    (DOCS, "'docs', 'body'", "42703"),
    (DOCS, "'docs', ''", "22023"),
    (DOCS, "'docs', ','", "42703"),
    (DOCS, "'docs', '{}'", "22023"),
    (DOCS, "'docs', 'content, content'", "42701"),
    (DOCS, "'docs', 'id'", "42804"),
    ("create table docs (content json)", "'docs'", "42804"),
    ("create table docs (content text[])", "'docs'", "42804"),
    ("create table docs (a text, content text generated always as (a) stored)", "'docs'", "428C9"),
    (DOCS, "'docs', embedding => 'content'", "42804"),
    (DOCS, "'docs', embedding => 'ctid'", "42602"),
    (DOCS, "'docs', embedding => ''", "42602"),
    ("create table docs (content text, embedding vector(3))", "'docs'", "42804"),
    ("create table docs (content text, embedding vector)", "'docs'", "42804"),
    (DOCS, "'docs', search_function => ''", "22023"),
    (DOCS, "0::regclass", "42P01"),
    (DOCS + "create function query_docs(text, float8 default 0) returns int language sql as 'select 1'", "'docs'", "42723"),
    ("create table docs (id int, content text) partition by list (id); create table leaf partition of docs default", "'leaf'", "42809"),
], ids=lambda value: value[:40] if isinstance(value, str) else None)
def test_what_cant_be_enabled(connection, setup, call, sqlstate):
    if setup:
        connection.execute(setup)
    state, message, detail, hint = refused(connection, f"select enable_semantic_search({call})")
    assert (state, bool(detail), bool(hint)) == (sqlstate, True, True), (message, detail, hint)
    assert "othing was made" in detail


def test_a_temporary_table_of_another_session(database, connection):
    other = database.connect()
    other.execute("create temp table docs (content text)")
    oid = one(other, "select 'docs'::regclass::oid")
    state, message, detail, hint = refused(connection, f"select enable_semantic_search({oid}::regclass)")
    assert state == "42809" and "another session" in message and detail and hint


@pytest.mark.parametrize("sqlstate, said, advice", [
    ("53100", 'could not resize shared memory segment "/PostgreSQL.1" to 67108864 bytes: No space left on device', "max_parallel_maintenance_workers = 0"),
    ("53200", 'could not resize shared memory segment "/PostgreSQL.1" to 67108864 bytes: Cannot allocate memory', "/dev/shm"),
    ("53100", 'could not extend file "base/5/1": No space left on device', "with_index => false"),
    ("53200", "out of memory", "maintenance_work_mem"),
])
def test_no_room_for_an_index(connection, sqlstate, said, advice):
    connection.execute(f"{DOCS} create function fails() returns event_trigger language plpgsql as $$ begin raise exception '{said}' using errcode = '{sqlstate}'; end $$; "
                       "create event trigger fails on ddl_command_start when tag in ('CREATE INDEX') execute function fails()")
    state, message, detail, hint = refused(connection, "select enable_semantic_search('docs')")
    assert state == sqlstate and said in message and "othing was made" in detail and advice in hint
    assert one(connection, "select count(*) from pg_attribute where attrelid = 'docs'::regclass and attname = 'embedding'") == 0
    connection.execute("drop event trigger fails; select enable_semantic_search('docs')")


@pytest.mark.parametrize("call", ["disable_semantic_search('docs')", "disable_semantic_search('leaf')", "disable_semantic_search('v')", "disable_semantic_search('s')", "disable_semantic_search('docs', 'nothing')"])
def test_disabling_what_is_not_enabled_is_no_error(connection, call):
    connection.execute("create table docs (id int, content text) partition by list (id); create table leaf partition of docs default; create view v as select 1; create sequence s")
    connection.execute(f"select {call}")


def test_disabling_without_rights(database, connection):
    connection.execute(DOCS)
    state, message, detail, hint = refused(database.connect("gte_plain"), "select disable_semantic_search('docs')")
    assert state == "42501" and detail and hint


@pytest.mark.parametrize("use", ["declare reading cursor for select * from docs; fetch reading",
                                 "insert into docs values (3, null, 7)"], ids=["cursor", "deferred constraint"])
def test_a_table_that_this_session_uses(connection, use):
    connection.execute("create table docs (id int primary key, content text, other int references docs deferrable initially deferred)")
    connection.execute("insert into docs values (1, 'a cat', 1)")
    connection.execute(f"begin; {use}")
    state, message, detail, hint = refused(connection, "select enable_semantic_search('docs')")
    assert state == "55006" and "docs" in message and "othing was made" in detail and hint.startswith("COMMIT")
    connection.execute("rollback")
    connection.execute("select enable_semantic_search('docs')")


def test_rights_that_the_trigger_needs(database, connection):
    connection.execute("grant create on schema public to gte_owner; revoke execute on function embed_trigger() from public")
    owner = database.connect("gte_owner")
    owner.execute(DOCS)
    state, message, detail, hint = refused(owner, "select enable_semantic_search('docs')")
    assert state == "42501" and "embed_trigger" in message and "othing was made" in detail
    connection.execute(hint)
    owner.execute("select enable_semantic_search('docs')")
