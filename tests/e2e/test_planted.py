"""Planted objects that have the names of other objects: they change nothing and never run.

A hostile session has them first in its search_path, even before pg_catalog, or as temporary objects. A call of a planted
function writes to `planted_log`.
"""

import psycopg
import pytest

from measure import one, unit_axis
from test_note import describe, fingerprint, note

# Every planted function writes to the log, with any return type.
FUNCTION = (
    "create function planted.{name}({arguments}) returns {result} language plpgsql as "
    "$$ begin insert into public.planted_log values ('{name}({arguments})'); return {value}; end $$"
)
FUNCTIONS = [
    ("embed", "pg_catalog.text", "public.vector", f"'{unit_axis(9)}'"),
    ("embed", "pg_catalog.varchar", "public.vector", f"'{unit_axis(9)}'"),
    ("embed_query", "pg_catalog.text", "public.vector", f"'{unit_axis(9)}'"),
    ("embed_query", "pg_catalog.varchar", "public.vector", f"'{unit_axis(9)}'"),
    ("to_tsvector", "regconfig, pg_catalog.text", "tsvector", "'planted'"),
    ("length", "pg_catalog.text", "pg_catalog.int4", "0"),
    ("replace", "pg_catalog.text, pg_catalog.text, pg_catalog.text", "pg_catalog.text", "'planted'"),
    ('"left"', "pg_catalog.text, pg_catalog.int4", "pg_catalog.text", "'planted'"),
    ("quote_ident", "pg_catalog.text", "pg_catalog.text", "'planted'"),
    ("format", "pg_catalog.text, pg_catalog.text", "pg_catalog.text", "'select 1'"),
    ("format", "pg_catalog.text, name, name", "pg_catalog.text", "'select 1'"),
    ("to_regprocedure", "pg_catalog.text", "regprocedure", "null"),
    ("obj_description", "oid, name", "pg_catalog.text", "'planted'"),
    ("array_agg", "name", "name[]", "'{planted}'"),
    ("convert_from", "bytea, name", "pg_catalog.text", "'planted'"),
    ("substr", "pg_catalog.text, pg_catalog.int4", "pg_catalog.text", "'{}'"),
]
OPERATORS = [
    ("<#>", "public.vector", "public.vector", "pg_catalog.float8", "0"),
    ("<=>", "public.vector", "public.vector", "pg_catalog.float8", "0"),
    ("<", "pg_catalog.float8", "pg_catalog.float8", "boolean", "true"),
    ("-", None, "pg_catalog.float8", "pg_catalog.float8", "0"),
    ("+", "pg_catalog.float8", "pg_catalog.float8", "pg_catalog.float8", "0"),
    ("/", "pg_catalog.float8", "pg_catalog.float8", "pg_catalog.float8", "0"),
    ("*", "pg_catalog.int8", "pg_catalog.int4", "pg_catalog.int8", "0"),
    ("<=", "pg_catalog.int8", "pg_catalog.int4", "boolean", "false"),
    ("||", "pg_catalog.text", "pg_catalog.text", "pg_catalog.text", "'planted'"),
    ("@@", "tsvector", "tsquery", "boolean", "true"),
    ("=", "tid", "tid", "boolean", "true"),
    ("=", "oid", "oid", "boolean", "true"),
    ("=", "name", "name", "boolean", "true"),
    ("~~", "pg_catalog.text", "pg_catalog.text", "boolean", "true"),
]
TYPES = ["vector", "text", "float8", "int4", "name", "regclass", "regconfig", "tsvector", "tsquery", "jsonb", "oid"]
TABLES = ["embeddings", "docs", "q", "semantic", "pg_trigger", "pg_depend", "pg_extension", "pg_proc", "pg_description", "pg_type", "pg_namespace"]


def types_and_tables(schema):
    for name in TABLES:
        yield f"create table {schema}.{name} (id bigint, content pg_catalog.text, embedding public.vector(384))"
    for name in TYPES:
        # A table also has a type of its name.
        yield f"create domain {schema}.{name} as pg_catalog.bytea"


def functions_and_operators():
    for name, arguments, result, value in FUNCTIONS:
        yield FUNCTION.format(name=name, arguments=arguments, result=result, value=value)
    for number, (operator, left, right, result, value) in enumerate(OPERATORS):
        arguments = ", ".join(filter(None, [left, right]))
        yield FUNCTION.format(name=f"operator_{number}", arguments=arguments, result=result, value=value)
        left = f"leftarg = {left}, " if left else ""
        yield f"create operator planted.{operator} ({left}rightarg = {right}, function = planted.operator_{number})"


def model_noted(connection):
    return note(connection, "embeddings").get("fingerprint")


def forget(connection):
    """Resets the note, as if the table had no vectors: the next writer records the model."""
    known = note(connection, "embeddings")
    known.pop("fingerprint")
    describe(connection, known, "embeddings")


@pytest.fixture
def clean(database, tutorial):
    """A session without planted objects in its search_path."""
    tutorial.execute(
        "create schema planted authorization gte_plain; create table planted_log (what text); grant insert on planted_log to public; "
        "insert into embeddings (content) values ('a cat'), ('a dog'), ('a bird')"
    )
    # A role that owns a schema, as any role may.
    planter = database.connect("gte_plain")
    planter.execute("; ".join([*functions_and_operators(), *types_and_tables("planted")]))
    planter.close()
    forget(tutorial)
    return tutorial


@pytest.fixture(params=["schema", "pg_temp"])
def hostile(request, database, clean):
    connection = database.connect()
    if request.param == "schema":
        connection.execute("set search_path = planted, public, pg_catalog")
        trap = "select 1::pg_catalog.float8 < 2::pg_catalog.float8, embed('a cat'::pg_catalog.text)"
    else:
        connection.execute("; ".join(types_and_tables("pg_temp")))
        trap = None
    yield connection
    assert clean.execute("select * from public.planted_log").fetchall() == []
    # The planted objects work: a name without a schema finds them.
    if trap:
        connection.execute(trap)
        assert one(clean, "select count(*) from public.planted_log") == 2
    for name in TYPES:
        kind = "select typtype from pg_catalog.pg_type where oid operator(pg_catalog.=) %s::pg_catalog.regtype::pg_catalog.oid"
        assert one(connection, kind, [name]) == "d"
    assert connection.execute("select * from embeddings").fetchall() == []


SEARCHES = ["public.query_embeddings('a cat', 0.9)", "public.query_embeddings('a cat', 0.9, 2)", "public.query_embeddings('a cat', null, 2)",
            "public.query_embeddings(public.embed('a cat'), 0.9)", "public.query_embeddings(embedding => public.embed('a cat'), match_threshold => 0.9, match_count => 2)"]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("index", ["on", "off"])
def test_search(clean, hostile, search, index):
    """The bodies are inlined SQL, so their names are looked up in the search_path of the caller."""
    for connection in (clean, hostile):
        connection.execute(f"set enable_seqscan = {'off' if index == 'on' else 'on'}; set enable_indexscan = {index}")
    expected = clean.execute(f"select id, content from {search}").fetchall()
    assert expected and expected[0][1] == "a cat"
    assert hostile.execute(f"select id, content from {search}").fetchall() == expected


def test_trigger(clean, hostile):
    hostile.execute("insert into public.embeddings (content) values ('a fish'); update public.embeddings set content = 'a lion' where content = 'a dog'")
    assert one(clean, "select count(*) from embeddings where embedding::text = embed(content)::text") == 4
    assert model_noted(clean) == fingerprint(clean)


def test_the_warning_and_the_mark(server, clean, hostile):
    hostile.execute("insert into public.embeddings (content) values ('a bee')")
    hostile.execute("select pg_catalog.set_config('gte_small.model_path', %s, false)", [str(server.tiny_other)])
    hostile.execute("insert into public.embeddings (content) values ('a fish')")
    assert note(clean, "embeddings")["mixed"] is True


COLUMNS = "select embedding, content, trigger_name, trigger_enabled, note from public.embedding_columns('public.embeddings'::pg_catalog.regclass)"


def test_embedding_columns(clean, hostile):
    expected = clean.execute(COLUMNS).fetchall()
    assert len(expected) == 1 and expected[0][0] == "embedding" and expected[0][4]["text_search"]
    assert hostile.execute(COLUMNS).fetchall() == expected


def test_embedding_written(clean, hostile):
    hostile.execute("select public.embedding_written('public.embeddings'::pg_catalog.regclass)")
    assert model_noted(clean) == fingerprint(clean)


@pytest.mark.parametrize("expression", ["public.embed('a cat')", "public.embed_query('a cat')", "(public.embed(array['a cat']::pg_catalog.text[]))[1]"])
def test_functions(clean, hostile, expression):
    values = [one(connection, f"select {expression}::public.vector::pg_catalog.text") for connection in (clean, hostile)]
    assert values[0] == values[1]
    assert hostile.execute("select name, dims from public.embed_model()").fetchone() == clean.execute("select name, dims from embed_model()").fetchone()


def test_hybrid_search(clean, hostile):
    search = "select (item).id, (item).content, full_text_rank, semantic_rank, score from public.hybrid_embeddings('a cat', 3)"
    expected = clean.execute(search).fetchall()
    assert len(expected) == 3 and expected[0][1:4] == ("a cat", 1, 1)
    assert hostile.execute(search).fetchall() == expected


MADE = (
    "select 'function', pg_catalog.pg_get_functiondef(oid) from pg_catalog.pg_proc where proname in ('query_docs', 'hybrid_docs') "
    "and pronamespace operator(pg_catalog.=) 'public'::pg_catalog.regnamespace::pg_catalog.oid "
    "union all select 'index', pg_catalog.pg_get_indexdef(indexrelid) from pg_catalog.pg_index "
    "where indrelid operator(pg_catalog.=) 'public.docs'::pg_catalog.regclass::pg_catalog.oid "
    "union all select 'trigger', pg_catalog.pg_get_triggerdef(oid) from pg_catalog.pg_trigger "
    "where tgrelid operator(pg_catalog.=) 'public.docs'::pg_catalog.regclass::pg_catalog.oid order by 1, 2"
)


def test_enable_and_disable(clean, hostile):
    clean.execute("create table docs (id int, content text)")
    made = []
    for connection in (clean, hostile):
        connection.execute("select public.enable_semantic_search('public.docs'::pg_catalog.regclass)")
        made.append(clean.execute(MADE).fetchall())
        connection.execute("insert into public.docs values (1, 'a cat'), (2, 'a dog')")
        assert clean.execute("select content from query_docs('a cat', 0.9, 1)").fetchall() == [("a cat",)]
        # A second call, which repairs what is missing.
        connection.execute("select public.enable_semantic_search('public.docs'::pg_catalog.regclass)")
        connection.execute("select public.disable_semantic_search('public.docs'::pg_catalog.regclass)")
        assert clean.execute(MADE).fetchall() == []
    assert made[0] == made[1] and len(made[0]) >= 8


def test_the_tutorials_file(database, clean, hostile):
    """Applied again by a session whose search_path has another role's schema, with the table in public."""
    objects = MADE.replace("docs", "embeddings")
    before = clean.execute(objects).fetchall()
    hostile.execute("set search_path = public, planted, pg_catalog")
    database.apply_embeddings_sql(hostile)
    assert clean.execute(objects).fetchall() == before and len(before) >= 8
    hostile.execute("set search_path = planted, public, pg_catalog")


# --- at install ---


@pytest.fixture
def bare(server):
    database = server.create_database("template0")
    yield database
    database.drop()


def test_install_beside_temporary_objects(bare):
    """The install script looks up names in its own schemas first."""
    connection = bare.connect()
    connection.execute("create extension vector")
    connection.execute("; ".join(types_and_tables("pg_temp")))
    connection.execute('create extension "gte-small"')
    other = bare.connect()
    assert one(other, "select vector_dims(embed('a cat'))") == 384
    assert one(other, "select count(*) from pg_proc p join pg_type t on t.oid = p.prorettype "
                      "where p.proname like 'embed%%' and t.typnamespace::regnamespace::text like 'pg_temp%%'") == 0


@pytest.mark.parametrize("operator", ["<#>", "<=>", "<->"])
def test_install_refuses_each_planted_operator(bare, operator):
    connection = bare.connect()
    connection.execute("create schema ext; create extension vector schema ext; create function public.evil(ext.vector, ext.vector) "
                       "returns float8 language sql as 'select 1.0::float8'; "
                       f"create operator public.{operator} (leftarg = ext.vector, rightarg = ext.vector, function = public.evil)")
    with pytest.raises(psycopg.errors.DuplicateObject) as error:
        connection.execute('create extension "gte-small" schema public')
    assert operator in error.value.diag.message_primary


@pytest.mark.parametrize("function", [
    "public.embed(text) returns text", "public.embed_query(text) returns text", "public.embedding_columns(regclass) returns text",
])
def test_install_does_not_take_over_a_planted_function(bare, function):
    """CREATE OR REPLACE would keep the owner, who could then change the body of a function that others trust."""
    connection = bare.connect()
    connection.execute(f"create extension vector; create function {function} language sql as $$ select 'planted' $$")
    with pytest.raises(psycopg.errors.DuplicateFunction):
        connection.execute('create extension "gte-small"')
    assert one(connection, "select count(*) from pg_extension where extname = 'gte-small'") == 0


@pytest.mark.parametrize("function", ["format(text, text)", "current_setting(text)", "to_regtype(text)", "to_regoperator(text)"])
def test_functions_planted_in_public_do_not_run_at_install(bare, function):
    connection = bare.connect()
    name = function.partition("(")[0]
    connection.execute("create extension vector; create table public.planted_log (what text); "
                       f"create function public.{function} returns text language plpgsql as "
                       f"$$ begin insert into public.planted_log values ('{name}'); return null; end $$; "
                       "set search_path = public, pg_catalog")
    connection.execute('create extension "gte-small"')
    assert one(connection, "select count(*) from public.planted_log") == 0
