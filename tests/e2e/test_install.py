"""CREATE, DROP and ALTER EXTENSION: schemas, dependent objects, and planted objects."""

import psycopg
import pytest

from measure import counting, one, unit_axis


@pytest.fixture
def bare(server):
    """A database without any extension."""
    database = server.create_database("template0")
    yield database
    database.drop()


def works(connection, schema):
    """Functions, trigger and search, with an empty search_path."""
    connection.execute("set search_path = ''")
    assert one(connection, f"select pg_typeof({schema}.embed('a cat'))::regtype::oid::int") == one(
        connection, "select t.oid::int from pg_type t join pg_depend d on d.objid = t.oid join pg_extension e on "
        "e.oid = d.refobjid where e.extname = 'vector' and t.typname = 'vector'"
    )
    vectors = one(connection, "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'")
    assert one(connection, f"select {vectors}.vector_dims({schema}.embed('a cat'))") == 384
    connection.execute(
        f"create temporary table notes (content text, embedding {vectors}.vector(384)); "
        "create trigger zzz_gte_small_embedding before insert or update on pg_temp.notes for each row "
        f"execute function {schema}.embed_trigger(); insert into pg_temp.notes values ('a cat')"
    )
    assert one(connection, f"select embedding::text = {schema}.embed('a cat')::text from pg_temp.notes")
    assert one(connection, f"select ({schema}.embed(array['a cat', null]))[2] is null")
    assert one(connection, f"select {schema}.embed_query('a cat')::text = {schema}.embed('a cat')::text")
    connection.execute("drop table pg_temp.notes; reset search_path")


def test_cascade_brings_vector_along(bare):
    connection = bare.connect()
    connection.execute('create extension "gte-small" cascade')
    works(connection, "public")


def test_without_vector_postgres_says_so(bare):
    with pytest.raises(psycopg.errors.UndefinedObject) as error:
        bare.connect().execute('create extension "gte-small"')
    assert "cascade" in error.value.diag.message_hint.lower()


def test_vector_in_another_schema(bare):
    connection = bare.connect()
    connection.execute("create schema ext; create extension vector schema ext")
    connection.execute('create extension "gte-small" schema public')
    works(connection, "public")


def test_both_in_other_schemas(bare):
    connection = bare.connect()
    connection.execute('create schema vec; create schema "My Ext"; create extension vector schema vec')
    connection.execute('create extension "gte-small" schema "My Ext"')
    works(connection, '"My Ext"')


def test_embeddings_sql_with_extensions_elsewhere(bare):
    """The tutorial's hosts have extensions in a separate schema."""
    connection = bare.connect()
    connection.execute("create schema extensions; set search_path = public, extensions")
    connection.execute('create extension vector schema extensions; create extension "gte-small" schema extensions')
    bare.apply_embeddings_sql(connection)
    connection.execute("insert into embeddings (content) values ('a cat')")
    for call in ("'a cat', 0.9", "'a cat', 0.9, 3", "extensions.embed('a cat'), 0.9", "extensions.embed('a cat'), 0.9, 3"):
        connection.execute("set search_path = ''")
        assert connection.execute(f"select content from public.query_embeddings({call})").fetchall() == [("a cat",)]


def test_alter_extension_vector_set_schema(database, tutorial):
    """A backend that has already looked up the type, and another that has not."""
    tutorial.execute("insert into embeddings (content) values ('a cat')")
    tutorial.execute("create schema moved; alter extension vector set schema moved")
    works(tutorial, "public")
    works(database.connect(), "public")
    tutorial.execute("update embeddings set content = 'a dog'")
    assert one(tutorial, "select embedding::text = embed('a dog')::text from embeddings")
    # The names in the search functions are fixed when the functions are created, so the file is applied again.
    tutorial.execute("set search_path = public, moved")
    database.apply_embeddings_sql(tutorial)
    for call in ("'a dog', 0.9", "'a dog', 0.9, 3", "embed('a dog'), 0.9", "embed('a dog'), 0.9, 3"):
        assert tutorial.execute(f"select content from query_embeddings({call})").fetchall() == [("a dog",)]


def test_drop_and_create_vector_again_in_one_session(bare):
    """The type has another OID then. A cached OID would make values of a type that does not exist."""
    connection = bare.connect()
    for _ in range(2):
        connection.execute('create extension "gte-small" cascade')
        works(connection, "public")
        connection.execute('drop extension "gte-small"; drop extension vector')


# --- planted objects ---


PLANTED = {
    "domain": "create domain public.vector as text",
    "type": "create type public.vector as (x int)",
    "table": "create table public.vector (x int)",
    "operator": "create function public.evil(ext.vector, ext.vector) returns float8 language sql as 'select 1.0::float8'; "
    "create operator public.<#> (leftarg = ext.vector, rightarg = ext.vector, function = public.evil)",
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED.keys())
def test_planted_objects_are_refused_at_install(bare, planted):
    """The install script runs as a superuser with the search_path `public, ext`, so the planted object comes first."""
    connection = bare.connect()
    connection.execute("create schema ext; create extension vector schema ext")
    connection.execute(planted)
    with pytest.raises(psycopg.Error) as error:
        connection.execute('create extension "gte-small" schema public')
    assert error.value.sqlstate == "42710", error.value
    assert one(connection, "select count(*) from pg_extension where extname = 'gte-small'") == 0
    # In a separate schema nothing hides pgvector's names.
    connection.execute('create schema own; create extension "gte-small" schema own')
    works(connection, "own")


def test_a_type_planted_after_the_installation(connection):
    connection.execute("create schema early; create domain early.vector as text; set search_path = early, public, pg_catalog")
    connection.execute("create table early.notes (content text, embedding public.vector(384))")
    connection.execute(
        "create trigger zzz_gte_small_embedding before insert or update on early.notes for each row "
        "execute function embed_trigger(); insert into notes values ('a cat')"
    )
    assert one(connection, "select embedding::text = embed('a cat')::text from notes")


# --- dropping ---


@pytest.mark.parametrize("dependant", [
    "create table notes (content text, embedding vector(384)); create trigger zzz_gte_small_embedding before insert "
    "on notes for each row execute function embed_trigger()",
    "create table notes (content text, embedding vector(384) generated always as (embed(content)) stored)",
    "create table notes (content text); create index on notes using hnsw ((embed(content)::vector(384)) vector_ip_ops)",
    "create view notes as select embed('x')",
], ids=["trigger", "generated column", "expression index", "view"])
def test_drop_refuses_while_objects_depend(connection, dependant):
    connection.execute(dependant)
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        connection.execute('drop extension "gte-small"')
    assert one(connection, "select vector_dims(embed('still there'))") == 384


def test_drop_cascade_leaves_the_data(tutorial):
    tutorial.execute("insert into embeddings (content) values ('a cat')")
    before = tutorial.execute("select id, content, embedding::text from embeddings").fetchall()
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        tutorial.execute('drop extension "gte-small"')
    tutorial.execute('drop extension "gte-small" cascade')
    assert tutorial.execute("select id, content, embedding::text from embeddings").fetchall() == before
    assert one(tutorial, "select count(*) from pg_trigger where not tgisinternal") == 0
    assert one(tutorial, "select count(*) from pg_proc where proname in ('query_embeddings', 'embed')") == 0
    # The index belongs to pgvector and stays. Writing works without the extension.
    assert one(tutorial, "select count(*) from pg_indexes where indexname = 'embeddings_embedding_idx'") == 1
    tutorial.execute("insert into embeddings (content) values ('a dog')")


def test_create_again_after_drop_cascade(database, tutorial):
    tutorial.execute("insert into embeddings (content) values ('a cat')")
    tutorial.execute('drop extension "gte-small" cascade; create extension "gte-small"')
    database.apply_embeddings_sql(tutorial)
    with counting(tutorial) as counted:
        assert tutorial.execute("select content from query_embeddings('a cat', 0.9)").fetchall() == [("a cat",)]
    assert counted.calls == 1


def test_embeddings_sql_refuses_a_foreign_table(database, connection):
    """A table of that name without the columns belongs to something else: an error, and nothing changes."""
    connection.execute("create table embeddings (id int)")
    with pytest.raises(psycopg.Error):
        database.apply_embeddings_sql(connection)
    assert one(connection, "select count(*) from pg_proc where proname = 'query_embeddings'") == 0
    assert one(connection, "select relrowsecurity from pg_class where oid = 'embeddings'::regclass") is False
    assert one(connection, "select count(*) from pg_trigger where tgrelid = 'embeddings'::regclass") == 0


def test_embeddings_sql_in_another_schema(database, connection):
    """The table and its functions are created in the current schema. The names in the bodies are qualified."""
    connection.execute('create schema "App 1"; set search_path = "App 1", public')
    database.apply_embeddings_sql(connection)
    connection.execute("insert into embeddings (content) values ('a cat'); set search_path = ''")
    for call in ("'a cat', 0.9", "'a cat', 0.9, 3", "public.embed('a cat'), 0.9", "public.embed('a cat'), 0.9, 3"):
        assert connection.execute(f'select content from "App 1".query_embeddings({call})').fetchall() == [("a cat",)]


def test_embeddings_sql_twice_keeps_the_data(database, tutorial):
    tutorial.execute("insert into embeddings (content, embedding) values ('a cat', %s)", [unit_axis(1)])
    with counting(tutorial) as counted:
        database.apply_embeddings_sql(tutorial)
        database.apply_embeddings_sql(tutorial)
    assert counted.calls == 0
    assert one(tutorial, "select embedding::text from embeddings") == unit_axis(1)
    assert one(tutorial, "select count(*) from pg_trigger where not tgisinternal") == 1
    assert one(tutorial, "select count(*) from pg_proc where proname = 'query_embeddings'") == 4


def test_embeddings_sql_by_psql(database):
    database.psql(database.server.embeddings_sql.read_text())
    database.psql(database.server.embeddings_sql.read_text(), args=["--single-transaction"])
    answer = database.psql("insert into embeddings (content) values ('a cat'); "
                           "select content from query_embeddings('a cat', 0.9);", args=["-A", "-t", "-q"])
    assert answer.stdout.split("\n")[0] == "a cat"
