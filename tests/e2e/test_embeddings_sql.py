"""`sql/embeddings.sql` in a database with other objects: it works, or it changes nothing."""

import psycopg
import pytest

from measure import one

PLANTED = """
create table planted_log (who text);
grant insert on planted_log to public;
create function {0} returns text language plpgsql as $$
begin insert into public.planted_log values (current_user); return pg_catalog.{1}; end $$;
"""


def objects(connection):
    return connection.execute(
        "select 'class', relname::text, relrowsecurity from pg_class where relnamespace = 'public'::regnamespace "
        "union all select 'function', oid::regprocedure::text, false from pg_proc where pronamespace = 'public'::regnamespace "
        "union all select 'trigger', tgname::text, false from pg_trigger order by 1, 2"
    ).fetchall()


@pytest.mark.parametrize(
    "signature, call",
    [
        ("quote_ident(name)", "quote_ident($1::text)"),
        ("format(text, text, text)", "format($1, variadic array[$2, $3])"),
    ],
)
def test_planted_functions_do_not_run(database, connection, signature, call):
    connection.execute("grant create on schema public to gte_plain")
    database.connect("gte_plain").execute(PLANTED.format(signature, call))
    database.apply_embeddings_sql(connection)
    assert one(connection, "select count(*) from planted_log") == 0
    assert one(connection, "select current_setting('search_path')") == '"$user", public'


@pytest.mark.parametrize(
    "made, sqlstate",
    [
        ("create table embeddings (id int, content text, embedding vector(1536))", "42804"),
        ("create table embeddings (id int, content int, embedding vector(384))", "42804"),
        ("create table embeddings (id int, body text)", "42703"),
        ("create view embeddings as select 'a'::text as content, null::vector(384) as embedding", "42809"),
        (
            "create table embeddings (id int, content text, embedding vector(384)); create function "
            "query_embeddings(embedding vector(384), match_threshold float) returns setof embeddings language plpgsql "
            "as 'begin return; end'",
            "42723",
        ),
    ],
)
def test_what_is_in_the_way_is_left_as_it_is(database, connection, made, sqlstate):
    connection.execute(made)
    before = objects(connection)
    with pytest.raises(psycopg.Error) as raised:
        database.apply_embeddings_sql(connection)
    assert raised.value.sqlstate == sqlstate
    assert raised.value.diag.message_detail and raised.value.diag.message_hint
    assert objects(connection) == before
    assert one(connection, "select current_setting('search_path')") == '"$user", public'


def test_no_schema_to_make_it_in(database, connection):
    connection.execute("set search_path = ''")
    with pytest.raises(psycopg.errors.InvalidSchemaName):
        database.apply_embeddings_sql(connection)


def test_a_table_that_fits_is_taken_with_its_rows_and_comment(database, connection):
    connection.execute(
        "create table embeddings (content varchar, embedding vector(384), own text); comment on table embeddings is 'mine'; "
        "create index embeddings_embedding_idx on embeddings using hnsw (embedding vector_cosine_ops); "
        "insert into embeddings (content, own) values ('before', 'x')"
    )
    database.apply_embeddings_sql(connection)
    assert one(connection, "select obj_description('embeddings'::regclass)") == "mine"
    assert not one(connection, "select relrowsecurity from pg_class where oid = 'embeddings'::regclass")
    connection.execute("insert into embeddings (content) values ('a cat'); update embeddings set content = 'a dog' where own = 'x'")
    assert one(connection, "select count(embedding) from embeddings") == 2
    assert one(connection, "select content from query_embeddings('a cat', 0.99, 1)") == "a cat"
    assert one(connection, "select count(*) from pg_indexes where indexdef like '%vector_ip_ops%'") == 1


def test_a_second_run_keeps_what_the_owner_changed(database, tutorial):
    tutorial.execute("alter table embeddings disable row level security; comment on table embeddings is 'changed'")
    database.apply_embeddings_sql(tutorial)
    assert one(tutorial, "select obj_description('embeddings'::regclass)") == "changed"
    assert not one(tutorial, "select relrowsecurity from pg_class where oid = 'embeddings'::regclass")
    assert one(tutorial, "select count(*) from pg_indexes where tablename = 'embeddings'") == 3
