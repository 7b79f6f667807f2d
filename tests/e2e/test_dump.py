"""pg_dump and psql restore table, trigger, index, functions and vectors without a run of the model."""

import psycopg
import pytest

from measure import counting, one, unit_axis

NOWHERE = "/nonexistent/model"


def restore(database, target, *options):
    dump = database.server.cluster.tool("pg_dump", "--dbname", database.name, *options).stdout
    assert "query_embeddings" in dump
    target.psql(dump)
    return dump


@pytest.fixture
def empty(server):
    """A database without the extension and without a model: a restore that embeds would fail."""
    database = server.create_database("template0")
    database.configure("gte_small.model_path", NOWHERE)
    yield database
    database.drop()


def rows(connection):
    return connection.execute("select id, content, embedding::text from embeddings order by id").fetchall()


def objects(connection):
    """Trigger, index, the switch of row-level security, and the search functions with their dependencies."""
    return connection.execute(
        "select 'trigger', pg_get_triggerdef(oid) from pg_trigger where tgrelid = 'embeddings'::regclass "
        "union all select 'index', pg_get_indexdef(indexrelid) from pg_index where indrelid = 'embeddings'::regclass "
        "union all select 'rls', relrowsecurity::text from pg_class where oid = 'embeddings'::regclass "
        "union all select 'function', pg_get_functiondef(oid) from pg_proc where proname like '%\\_embeddings' "
        "union all select 'note', obj_description(oid, 'pg_trigger') from pg_trigger where tgrelid = 'embeddings'::regclass "
        "union all select 'comment', obj_description(indexrelid, 'pg_class') from pg_index where indrelid = 'embeddings'::regclass "
        "union all select 'belongs', objid::regprocedure::text from pg_depend d join pg_extension e on refobjid = e.oid "
        "where d.deptype = 'x' and e.extname = 'gte-small' and d.classid = 'pg_proc'::regclass order by 1, 2"
    ).fetchall()


@pytest.mark.parametrize("options", [[], ["--inserts"], ["--clean", "--if-exists"]], ids=["copy", "inserts", "clean"])
def test_dump_and_restore(database, tutorial, empty, options):
    tutorial.execute("insert into embeddings (content) select 'row ' || i from generate_series(1, 20) i")
    tutorial.execute("insert into embeddings (content, embedding) values ('foreign', %s)", [unit_axis(3)])
    tutorial.execute("set gte_small.own_vectors = on; update embeddings set embedding = null where id = 2")
    # A vector that does not belong to its text: a restore that embeds again would lose it.
    tutorial.execute("update embeddings set embedding = %s where id = 1", [unit_axis(4)])
    restore(database, empty, *options)
    restored = empty.connect()
    assert rows(restored) == rows(tutorial)
    assert objects(restored) == objects(tutorial)
    assert len([kind for kind, _ in objects(restored) if kind == "belongs"]) == 6
    assert one(restored, "select model_runs from embed_stats()") == 0
    # The search by vector needs no model. The trigger works and needs it.
    nearest = one(restored, "select content from query_embeddings(%s::vector, 0.9)", [unit_axis(3)])
    assert nearest == "foreign"
    with pytest.raises(psycopg.Error) as error:
        restored.execute("insert into embeddings (content) values ('new')")
    assert error.value.sqlstate == "58P01"


def test_restored_database_goes_on_with_its_model(server, database, tutorial, empty):
    tutorial.execute("insert into embeddings (content) values ('a cat'), ('a dog')")
    restore(database, empty)
    empty.configure("gte_small.model_path", server.tiny)
    restored = empty.connect()
    restored.execute("insert into embeddings (content) values ('a bird')")
    assert restored.execute("select content from query_embeddings('a bird', 0.9999)").fetchall() == [("a bird",)]


def test_a_null_beside_text_comes_back_as_null(database, tutorial, empty):
    """Rows that wait for a backfill stay so: a restore loads the data before it creates the trigger."""
    tutorial.execute("insert into embeddings (content) values ('a cat'); set gte_small.own_vectors = on; update embeddings set embedding = null")
    assert "CREATE TRIGGER" in restore(database, empty)
    assert rows(empty.connect()) == [(1, "a cat", None)]


def test_create_table_as_and_select_into(tutorial):
    tutorial.execute("insert into embeddings (content) values ('a cat')")
    with counting(tutorial) as counted:
        tutorial.execute("create table copied as table embeddings")
        tutorial.execute("insert into embeddings (content, embedding) select content, embedding from copied")
    assert counted.model_runs == 0
