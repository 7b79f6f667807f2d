"""ALTER EXTENSION "gte-small" UPDATE: from each released version to what a new installation has, with sessions open."""

import difflib
import hashlib
import re

import psycopg
import pytest

import catalogue
import versions
from conftest import CLONE
from measure import one, sqlstate, wait_until

# A released script never changes: databases that ran it are out there. `versions.py freeze` prints the next lines.
RELEASED = {
    "gte-small--0.1.0.sql": "04ecdf5e1e6180b7090fb020f76827dce7ed70871f200a229617ab4c583c7265",
}
FIRST = "0.1.0"
UPDATE = 'alter extension "gte-small" update'


@pytest.fixture
def bare(server):
    """A database without any extension."""
    database = server.create_database("template0")
    yield database
    database.drop()


@pytest.fixture
def fresh(server):
    """A database for the extension as a new installation has it."""
    database = server.create_database("template0")
    yield database
    database.drop()


def install(connection, version="", schema="public"):
    connection.execute(f"create schema if not exists {schema}; create extension vector schema {schema}")
    wanted = f"version '{version}'" if version else ""
    connection.execute(f'create extension "gte-small" schema {schema} {wanted}')


def version(connection):
    return one(connection, "select extversion from pg_extension where extname = 'gte-small'")


# --- the scripts ---


def test_released_scripts_do_not_change():
    there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in versions.RELEASED.iterdir()}
    assert there == RELEASED


def test_the_library_exports_every_symbol_of_a_released_version(connection):
    """A database may stay on its version for as long as its owner likes."""
    symbols = set()
    for name in RELEASED:
        symbols |= set(re.findall(r"'MODULE_PATHNAME', '(\w+)'", (versions.RELEASED / name).read_text()))
    assert "embed_gte_small" in symbols and len(symbols) > 8
    for symbol in sorted(symbols):
        connection.execute(f"create function pg_temp.{symbol}() returns int language c as '$libdir/gte-small', '{symbol}'")
    with pytest.raises(psycopg.errors.UndefinedFunction):
        connection.execute("create function pg_temp.wrong() returns int language c as '$libdir/gte-small', 'no_such_gte_small'")


@pytest.mark.parametrize("schema", ["public", "extensions"])
@pytest.mark.parametrize("released", versions.released())
def test_an_update_ends_where_a_new_installation_begins(bare, fresh, released, schema):
    """Every member of the extension: signature, body, attributes, settings, rights, comment, dependencies."""
    updated, new = bare.connect(), fresh.connect()
    install(updated, released, schema)
    before = catalogue.as_text(updated)
    updated.execute(UPDATE)
    install(new, schema=schema)
    assert version(updated) == version(new) == versions.in_work()
    wanted, found = catalogue.as_text(new), catalogue.as_text(updated)
    assert len(wanted) > 500 and before != found
    difference = "\n".join(difflib.unified_diff(wanted, found, "installed", "updated", lineterm=""))
    if difference:
        pytest.fail(difference, pytrace=False)


def test_the_comparison_sees_each_kind_of_difference(connection):
    """Otherwise two equal texts would say nothing."""
    seen = {tuple(catalogue.as_text(connection))}
    for number, change in enumerate([
        "alter function embed(text) cost 7", "comment on function embed(text) is 'other'", "comment on function embed(text) is null",
        "revoke execute on function embed(text) from public", "grant execute on function embed(text) to gte_plain",
        "alter function embed_stats() set work_mem = '1MB'", "alter function embed_stats() depends on extension vector",
        'alter extension "gte-small" drop function token_count(text)', "create schema more; alter extension \"gte-small\" add schema more",
        "update pg_extension set extversion = '9' where extname = 'gte-small'", "alter schema more owner to gte_owner",
    ], 2):
        connection.execute(change)
        seen.add(tuple(catalogue.as_text(connection)))
        assert len(seen) == number, change


def test_an_update_takes_over_no_function_of_others(bare):
    """OR REPLACE would keep the owner, who could change the body later."""
    connection = bare.connect()
    install(connection, FIRST)
    connection.execute('alter extension "gte-small" drop function token_count(text)')
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as error:
        connection.execute(UPDATE)
    assert "token_count(text) is not a member of extension" in str(error.value)
    assert version(connection) == FIRST and one(connection, "select count(*) from embedding_columns('pg_class')") == 0


def test_an_update_refuses_a_planted_type(bare):
    connection = bare.connect()
    connection.execute("create schema vec; create extension vector schema vec")
    connection.execute(f'create extension "gte-small" schema public version \'{FIRST}\'')
    connection.execute("create domain public.vector as text")
    with pytest.raises(psycopg.errors.DuplicateObject) as error:
        connection.execute(UPDATE)
    assert 'type "vector" is not the one of extension "vector"' in str(error.value) and version(connection) == FIRST


def test_an_update_keeps_rights_that_were_granted(bare):
    connection = bare.connect()
    install(connection, FIRST)
    connection.execute("revoke execute on function embed(text) from public; grant execute on function embed(text) to gte_reader")
    before = one(connection, "select proacl::text from pg_proc where oid = 'embed(text)'::regprocedure")
    connection.execute(UPDATE)
    assert one(connection, "select proacl::text from pg_proc where oid = 'embed(text)'::regprocedure") == before


# --- a database in use ---

FILL = """
create table docs (id int primary key, content text);
select {ext}.enable_semantic_search('docs');
create table parts (id int, content text) partition by range (id);
create table parts_1 partition of parts for values from (0) to (100);
select {ext}.enable_semantic_search('parts');
create table notes (id int, content text, embedding {ext}.vector(384));
create trigger fill before insert or update on notes for each row execute function {ext}.embed_trigger();
create table pages (body text, embedding {ext}.vector(384) generated always as ({ext}.embed(body)) stored);
create index on pages using hnsw (({ext}.embed(body)::{ext}.vector(384)) {ext}.vector_ip_ops);
create view cats as select {ext}.embed_query('a cat') as v;
create function nearest(asked text) returns text language plpgsql as
  $$ begin return (select content from query_docs({ext}.embed_query(asked), null, 1)); end $$;
"""
ROWS = "; ".join(f"insert into {table} values (1, 'a cat'), (2, 'a dog')" for table in (
    "docs (id, content)", "parts (id, content)", "notes (id, content)")) + "; insert into pages values ('a cat'), ('a dog')"

SEARCHES = ["select content from query_docs('a dog', 0.9)", "select content from query_docs('a dog', null, 1)",
            "select content from parts_of('a dog')", "select (item).content from hybrid_docs('a dog', 1)",
            "select nearest('a dog')", "execute find('a dog')",
            "select content from notes where embedding::text = (select embedding::text from docs where id = 2)"]


@pytest.fixture(params=["public", "extensions"])
def used(request, bare):
    """A connection of 0.1.0 with cached plans, to a database that has everything that 0.1.0 makes."""
    ext = request.param
    connection = bare.connect()
    install(connection, FIRST, ext)
    connection.execute(FILL.format(ext=ext) + "create function parts_of(text) returns setof parts language sql as "
                       "'select * from query_parts($1, null, 1)'")
    connection.execute((CLONE / "tests" / "e2e" / "released" / f"chunks-{FIRST}.sql").read_text())
    connection.execute("insert into documents (content) values ('Backups run every night. Invoices are due soon.')")
    connection.execute(ROWS)
    connection.execute("set plan_cache_mode = force_generic_plan; prepare find(text) as select content from query_docs($1, null, 1); "
                       f"prepare vector_of(text) as select {ext}.embed($1)::text; "
                       "prepare put(int, text) as insert into docs (id, content) values ($1, $2) returning embedding::text")
    connection.execute("execute put(3, 'a bird')")
    return connection, ext


def found(connection, ext):
    """What the searches answer, and the rows' vectors."""
    answers = [connection.execute(search).fetchall() for search in SEARCHES]
    answers += [connection.execute(f"select content, embedding::text from {table} order by id").fetchall() for table in ("docs", "parts", "notes")]
    answers += [connection.execute("select v::text from cats").fetchall(), connection.execute("execute vector_of('a cat')").fetchall(),
                connection.execute("select document_id, ordinal, content, embedding::text from chunks order by 1, 2").fetchall(),
                connection.execute("select (document).id, chunk from query_documents('invoices', null, 1)").fetchall(),
                connection.execute(f"select embedding, content, trigger_name, trigger_enabled, note from {ext}.embedding_columns('docs')").fetchall()]
    return answers


def goes_on(connection, ext, number):
    """Writes, by trigger, generated column, prepared statement and backfill; each vector is that of its text."""
    text = f"a new text, number {number}"
    vector = one(connection, f"select {ext}.embed(%s)::text", [text])
    assert connection.execute(f"execute put({number}, '{text}')").fetchone()[0] == vector
    connection.execute(f"insert into parts (id, content) values ({number}, '{text}'); insert into notes (id, content) values ({number}, '{text}'); "
                       f"insert into pages values ('{text}'); update docs set content = content || '!' where id = {number}")
    for table in ("parts", "notes"):
        assert one(connection, f"select embedding::text from {table} where id = {number}") == vector
    assert one(connection, f"select embedding::text from pages where body = '{text}'") == vector
    assert one(connection, f"select content from query_docs('{text}!', 0.9999)") == f"{text}!"
    connection.execute("insert into documents (content) values ('Paris is the capital of France.')")
    assert one(connection, "select chunk from query_documents('Paris is the capital of France.', 0.9999)").startswith("Paris")
    connection.execute("set gte_small.own_vectors = on; update docs set embedding = null where id = 1")
    connection.execute(f"call {ext}.embed_backfill('docs')")
    assert one(connection, f"select embedding::text = {ext}.embed(content)::text from docs where id = 1")
    assert one(connection, f"select bool_and(missing = 0) from {ext}.embedding_status('docs')")
    connection.execute(f"create table more_{number} (content text); select {ext}.enable_semantic_search('more_{number}'); "
                       f"insert into more_{number} values ('a fish')")
    assert one(connection, f"select content from query_more_{number}('a fish', 0.99)") == "a fish"
    connection.execute(f"select {ext}.disable_semantic_search('more_{number}')")


def test_sessions_go_on_after_an_update(bare, used):
    """The one that had cached plans, and a new one; what 0.1.0 generated works until it is renewed."""
    old, ext = used
    before = found(old, ext)
    assert all(before) and before[:7] == [[("a dog",)]] * 7
    goes_on(old, ext, 10)
    before = found(old, ext)
    bare.connect().execute(UPDATE)
    assert version(old) == versions.in_work()
    assert found(old, ext) == before == found(prepared(bare.connect(), ext), ext)
    goes_on(old, ext, 11)
    goes_on(prepared(bare.connect(), ext), ext, 12)


def prepared(connection, ext):
    connection.execute("prepare find(text) as select content from query_docs($1, null, 1); "
                       f"prepare vector_of(text) as select {ext}.embed($1)::text; "
                       "prepare put(int, text) as insert into docs (id, content) values ($1, $2) returning embedding::text")
    return connection


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_a_transaction_goes_on_after_an_update(bare, used, isolation):
    old, ext = used
    old.execute(f"begin isolation level {isolation}")
    old.execute("execute put(20, 'before'); insert into parts (id, content) values (20, 'before')")
    bare.connect().execute(f"set lock_timeout = '20s'; {UPDATE}")
    old.execute("execute put(21, 'after'); insert into parts (id, content) values (21, 'after')")
    assert old.execute("execute find('after')").fetchall() == [("after",)]
    old.execute("commit")
    for table in ("docs", "parts"):
        assert one(old, f"select count(*) from {table} where id >= 20 and embedding::text = {ext}.embed(content)::text") == 2


@pytest.mark.parametrize("force", ["false", "true"])
def test_a_backfill_that_an_update_interrupts_can_be_repeated(bare, force):
    """The update drops functions that it is about to call."""
    watcher, filling = bare.connect(), bare.connect()
    install(watcher, FIRST)
    watcher.execute("create table docs (id int primary key, content text); insert into docs select i, 'text ' || i from generate_series(1, 300) i; "
                    "select enable_semantic_search('docs', with_index => false); "
                    "create function wait() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock(1); return new; end $$; "
                    "create trigger wait before update on docs for each row execute function wait(); select pg_advisory_lock(1)")
    filling.pgconn.send_query(f"call embed_backfill('docs', 16, {force})".encode())
    filling.pgconn.flush()
    wait_until(lambda: one(watcher, "select count(*) from pg_locks where locktype = 'advisory' and not granted") == 1)
    watcher.execute(f"set lock_timeout = '20s'; {UPDATE}")
    watcher.execute("select pg_advisory_unlock(1)")
    # undefined_function, undefined_object, or an internal error about the type of the job
    assert sqlstate(filling) in ("42883", "42704", "XX000")
    filling.execute(f"call embed_backfill('docs', 16, {force})")
    assert one(filling, "select count(*) from docs where embedding::text is distinct from embed(content)::text") == 0
    assert one(watcher, "select missing from embedding_status('docs')") == 0


def test_an_update_that_is_rolled_back_leaves_the_old_version(bare, used):
    old, ext = used
    before, was = found(old, ext), catalogue.as_text(old)
    other = bare.connect(autocommit=False)
    other.execute(UPDATE)
    other.rollback()
    assert version(old) == FIRST and catalogue.as_text(old) == was and found(old, ext) == before
    goes_on(old, ext, 10)


def test_an_updated_database_can_be_dumped_and_restored(bare, fresh, used):
    old, ext = used
    bare.connect().execute(UPDATE)
    before = found(old, ext)
    fresh.psql(bare.server.cluster.tool("pg_dump", "--dbname", bare.name).stdout)
    restored = prepared(fresh.connect(), ext)
    assert found(restored, ext) == before
    assert catalogue.as_text(restored) == catalogue.as_text(old)
    goes_on(restored, ext, 10)
