"""Rights on long documents: who reads a document reads its chunks, and only who changes a document changes them."""

import psycopg
import pytest

from measure import one

TABLE = ("create table manuals (id int primary key, owner name default current_user, body text); "
         "alter table manuals enable row level security; create policy own on manuals using (owner = current_user); "
         "create policy shared on manuals for select using (owner = 'gte_owner')")
# As README prescribes.
GRANTS = "grant select on manuals, manuals_chunks to gte_reader, gte_plain; grant insert, update, delete on manuals to gte_plain"


@pytest.fixture
def owned(database, connection):
    """The table belongs to a plain role; a superuser enables the search."""
    connection.execute("create schema app authorization gte_owner; set search_path = app, public; grant usage on schema app to public")
    connection.execute("set role gte_owner; " + TABLE + "; reset role")
    connection.execute("select enable_document_search('manuals', 'body'); " + GRANTS)
    return connection


def session(database, role):
    connection = database.connect(role)
    connection.execute("set search_path = app, public")
    return connection


def test_a_reader_of_documents_can_not_write_chunks(database, owned):
    owner, reader = session(database, "gte_owner"), session(database, "gte_reader")
    owner.execute("insert into manuals values (1, default, 'Bring laptops to the front desk.')")
    content = "select document_id, ordinal, content from manuals_chunks"
    assert reader.execute(content).fetchall() == [(1, 1, "Bring laptops to the front desk.")]
    for statement in ("delete from manuals_chunks", "insert into manuals_chunks values (1, 2, 40, 'Send laptops to the car park.')",
                      "update manuals_chunks set content = 'Send laptops to the car park.'", "truncate manuals_chunks",
                      "insert into manuals values (2, 'gte_owner', 'x')", "update manuals set body = 'Send laptops to the car park.'",
                      "create trigger t after insert on manuals for each row execute function chunk_manuals()"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(statement)
    # The trigger function on a table of his own would write chunks as the owner.
    owned.execute("create schema his authorization gte_reader")
    reader.execute("create table his.t (id int, body text)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("create trigger t after insert on his.t for each row execute function app.chunk_manuals()")
    assert owner.execute(content).fetchall() == [(1, 1, "Bring laptops to the front desk.")]
    # No policy lets him write either, where a grant came from elsewhere.
    owned.execute("grant all on manuals_chunks to gte_reader")
    owned.execute("set gte_small.own_vectors = on; update manuals_chunks set embedding = null")
    reader.execute("insert into manuals_chunks select document_id, ordinal, start, content, public.embed('forged') from manuals_chunks")
    assert one(owned, "select embedding is null from manuals_chunks")
    reader.execute("delete from manuals_chunks; update manuals_chunks set content = 'x'")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("insert into manuals_chunks (document_id, ordinal, start, content) values (1, 2, 40, 'x')")
    assert owner.execute(content).fetchall() == [(1, 1, "Bring laptops to the front desk.")]


def test_a_search_without_rights_on_the_chunks_says_what_to_grant(database, owned):
    owned.execute("insert into manuals values (1, 'gte_owner', 'a cat'); revoke select on manuals_chunks from gte_reader")
    reader = session(database, "gte_reader")
    for renamed in ("", "alter table manuals_chunks rename to parts"):
        owned.execute(renamed or "select")
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as error:
            reader.execute("select * from query_manuals('a cat')")
        assert error.value.diag.message_detail
    owned.execute(error.value.diag.message_hint)
    assert one(reader, "select chunk from query_manuals('a cat')") == "a cat"


def test_a_writer_needs_no_rights_on_chunks(database, owned):
    plain = session(database, "gte_plain")
    owned.execute("revoke all on manuals_chunks from gte_plain")
    plain.execute("insert into manuals values (1, default, 'a cat'); update manuals set body = 'a dog'")
    assert one(owned, "select content from manuals_chunks") == "a dog"
    plain.execute("delete from manuals")
    assert one(owned, "select count(*) from manuals_chunks") == 0


def test_all_that_was_made_belongs_to_the_owner_of_the_table(owned):
    assert one(owned, "select string_agg(distinct pg_get_userbyid(proowner), ',') from pg_proc where proname like '%\\_manuals'") == "gte_owner"
    assert one(owned, "select pg_get_userbyid(relowner) from pg_class where relname = 'manuals_chunks'") == "gte_owner"
    assert one(owned, "select prosecdef and proconfig @> '{\"search_path=pg_catalog, pg_temp\"}' from pg_proc where proname = 'chunk_manuals'")
    assert one(owned, "select not prosecdef and proconfig is null from pg_proc where proname = 'query_manuals'")


def test_the_trigger_runs_nothing_that_a_writer_planted(database, owned):
    """Operators, functions and tables of its names in a schema of the session's search_path, and in pg_temp."""
    plain = session(database, "gte_plain")
    owned.execute("create schema evil; grant all on schema evil to gte_plain")
    planted = "returns bool language plpgsql as $$ begin raise exception 'planted, as %', current_user; end $$"
    plain.execute(f"create function evil.same(int, int) {planted}; create operator evil.= (leftarg = int, rightarg = int, function = evil.same); "
                  f"create function evil.same(text, text) {planted}; create operator evil.= (leftarg = text, rightarg = text, function = evil.same); "
                  "create function evil.concat_ws(text, text) returns text language plpgsql as $$ begin raise exception 'planted'; end $$; "
                  "create temporary table manuals_chunks (document_id int); create function pg_temp.cardinality(anyarray) returns int language sql as 'select 1/0'; "
                  "set search_path = evil, pg_catalog, app, public")
    plain.execute("insert into app.manuals values (1, current_user::name, 'a cat'); update app.manuals set body = 'a dog'")
    assert one(owned, "select content from app.manuals_chunks") == "a dog"
    # The search runs with the caller's rights and his path, and finds what it means.
    assert one(plain, "select chunk from app.query_manuals('a dog')") == "a dog"


def test_a_superuser_who_enables_runs_nothing_of_the_owner(database, connection):
    """The check of a domain of the key, a trigger on the chunks."""
    connection.execute("create schema app authorization gte_owner; set search_path = app, public")
    owner = session(database, "gte_owner")
    owner.execute("create table seen (who name); "
                  "create function note(text) returns bool language plpgsql as $$ begin insert into app.seen values (current_user); "
                  "begin set role postgres; insert into app.seen values (current_user); exception when others then end; return true; end $$; "
                  "create domain slug as text check (app.note(value)); create table manuals (slug slug primary key, body text); "
                  "insert into manuals values ('a', 'a cat'); delete from seen")
    connection.execute("select enable_document_search('manuals', 'body')")
    owner.execute("create function noted() returns trigger language plpgsql as $$ begin perform app.note(''); return new; end $$; "
                  "create trigger noted before insert or delete on manuals_chunks for each row execute function noted(); "
                  "alter table manuals disable trigger gte_small_chunks; insert into manuals values ('b', 'a dog')")
    connection.execute("select enable_document_search('manuals', 'body', 'slug')")
    assert connection.execute("select distinct who from seen").fetchall() == [("gte_owner",)]
    assert one(connection, "select count(*) from manuals_chunks") == 2
    assert one(connection, "select count(*) from pg_proc where proname like 'gte\\_small\\_fill%'") == 0


def test_default_privileges_do_not_open_the_chunks(database, connection):
    """A platform may give all rights on new tables and functions to its roles."""
    connection.execute("alter default privileges grant all on tables to gte_plain, public; alter default privileges grant all on functions to gte_plain")
    connection.execute("create table manuals (id int primary key, body text); revoke insert, update, delete, truncate on manuals from public; "
                       "select enable_document_search('manuals', 'body')")
    assert one(connection, "select relacl::text from pg_class where relname = 'manuals_chunks'") == "{postgres=arwdDxtm/postgres,gte_plain=r/postgres,=r/postgres}" \
        or connection.info.server_version < 170000
    plain = database.connect("gte_plain")
    for statement in ("truncate manuals_chunks", "create trigger t before insert on manuals for each row execute function chunk_manuals()"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            plain.execute(statement)


@pytest.mark.parametrize("force", [False, True])
def test_a_search_finds_as_many_documents_as_the_caller_may_see(database, owned, force):
    """The nearest chunks are of documents that he may not see."""
    owned.execute("insert into manuals select i, case when i % 100 = 0 then 'gte_reader' else 'somebody' end, 'cat number ' || i from generate_series(1, 2000) i")
    owned.execute("insert into manuals values (5000, 'gte_owner', repeat('A long text. ', 3000)); analyze manuals; analyze manuals_chunks")
    if force:
        owned.execute("alter table manuals force row level security")
    reader = session(database, "gte_reader")
    for count, found in ((10, 10), (21, 21), (50, 21), (0, 0)):
        assert one(reader, f"select count(*) from query_manuals('a cat', null, {count})") == found
        assert one(reader, f"select count(distinct (document).id) from query_manuals('a cat', null, {count})") == found
    assert one(reader, "select bool_and((document).owner in ('gte_reader', 'gte_owner')) from query_manuals('a cat', null, 50)")
    owner = session(database, "gte_owner")
    assert one(owner, "select count(*) from query_manuals('a cat', null, 3000)") == (1 if force else 2001)
    owner.execute("insert into manuals values (9000, default, 'a dog')")
    assert one(owner, "select chunk from query_manuals('a dog', null, 1)") == "a dog"
    # Policies run in the search: their functions are found by the caller's search_path.
    owned.execute("create function app.mine(name) returns bool language plpgsql as $$ begin return same_name($1); end $$; "
                  "create function app.same_name(name) returns bool language sql as 'select $1 = current_user'; "
                  "drop policy own on manuals; create policy own on manuals using (mine(owner)); drop policy shared on manuals")
    assert one(reader, "select count(*) from query_manuals('a cat', null, 30)") == 20


def test_counts_with_filters_thresholds_and_many_chunks(connection):
    connection.execute("create table manuals (id int primary key, tenant int, body text); create index on manuals (tenant); "
                       "select enable_document_search('manuals', 'body')")
    # The documents of tenant 1 have the nearest 3,000 chunks.
    connection.execute("insert into manuals select i, 1, '' from generate_series(1, 3) i; insert into manuals select i, i % 20, 'text ' || i from generate_series(4, 600) i; "
                       "set session_replication_role = replica")
    connection.execute("insert into manuals_chunks select id, n, n, 'a cat', embed('a cat') from manuals, generate_series(1, 1000) n where id <= 3; "
                       "reset session_replication_role; analyze manuals; analyze manuals_chunks")
    for count in (1, 3, 10, 603, 1000):
        rows = connection.execute(f"select (document).id, similarity from query_manuals('a cat', null, {count})").fetchall()
        assert len(rows) == len({document for document, _ in rows}) == min(count, 600 + 0 if count > 600 else count)
        # Ties by the key.
        assert [document for document, _ in rows[:3]] == [1, 2, 3][:count]
        assert [s for _, s in rows] == sorted((s for _, s in rows), reverse=True) and rows[0][1] <= 1
    exact = connection.execute("select document_id from manuals_chunks join manuals on id = document_id where tenant = 7 group by 1 "
                               "order by min(embedding <#> embed('a cat')), 1").fetchall()
    for count in (5, 30, 100):
        found = connection.execute(f"select (document).id from query_manuals('a cat', null, {count}, '{{\"tenant\": 7}}')").fetchall()
        assert found == exact[:count]
    assert one(connection, "select count(*) from query_manuals('a cat', null, 10, '{\"tenant\": null}')") == 0
    threshold = one(connection, "select -(embedding <#> embed('a cat')) from manuals_chunks where document_id > 3 order by 1 desc offset 9 limit 1")
    assert one(connection, "select count(*) from query_manuals('a cat', %s, 100)", [threshold]) == 12
    for wrong in ("'x', 2", "'x', null, -1", "' '", "'x', null, 3, '[1]'", "'x', null, 3, '{\"no\": 1}'"):
        with pytest.raises(psycopg.Error):
            connection.execute(f"select * from query_manuals({wrong})")
