"""scripts/demo.py: a demo of an older version is updated, and no table of the user is dropped unnamed."""

import pytest

import build
import contents
import demo
import versions
from measure import one
from state import Failure
from test_upgrade import FIRST, bare, install, version  # noqa: F401  a fixture


class OneDatabase:
    """The test's database as a demo's server: starts and stops do nothing, and other databases are not seen."""

    def __init__(self, database):
        self.database, self.destroyed, self.alive = database, False, True
        self.bin = database.server.cluster.bin

    def __getattr__(self, name):
        return getattr(self.database.server.cluster, name)

    def psql(self, statement, dbname="", **options):
        if "from pg_database where datallowconn" in statement:
            statement = f"select '{self.database.name}'"
        return self.database.server.cluster.psql(statement, dbname=dbname or self.database.name, **options)

    def start(self, settings=None):
        self.alive = True

    def stop(self):
        self.alive = False

    def running(self):
        return self.alive

    def destroy(self):
        self.destroyed = True


@pytest.fixture
def the_demo(tmp_path, monkeypatch):
    """Makes a demo of a test's database; nothing is built, and its state is kept in memory."""
    def of(database, **memory):
        made = demo.Demo(tmp_path / "demo", lambda: database.server.cluster.pg_config)
        made.memory = {"model": {"path": str(database.server.tiny)}, **memory}
        made.__dict__["cluster"] = OneDatabase(database)
        made.remember = lambda **facts: made.memory.update(facts)
        monkeypatch.setattr(demo, "DATABASE", database.name)
        monkeypatch.setattr(demo.Demo, "last", classmethod(lambda cls: made))
        monkeypatch.setattr(build, "build", lambda *_: None)
        monkeypatch.setattr(build, "install", lambda *_: False)
        monkeypatch.delenv("FORCE", raising=False)
        return made
    return of


IMPORTED = ("create table notes (body text); comment on table notes is 'imported from notes.csv'; insert into notes values ('a'), ('b'); "
            "create schema mine; create table mine.\"My table\" (x int); insert into mine.\"My table\" values (1); create table nothing_in_it (x int)")
NAMED = '  mine."My table"  (1 row)\n  notes  (2 rows, imported from notes.csv)'


def test_an_older_demo_is_updated(bare, the_demo, capsys):  # noqa: F811
    connection = bare.connect()
    install(connection, FIRST)
    bare.apply_embeddings_sql(connection)
    connection.execute("insert into embeddings (content) values ('a cat'); " + IMPORTED)
    made = the_demo(bare, sql="the fingerprint of 0.1.0")
    made.set_up()
    assert version(connection) == versions.in_work() and made.memory["sql"] == build.sql_fingerprint()
    assert f"from version {FIRST} to {versions.in_work()}" in capsys.readouterr().err
    assert one(connection, "select content from query_embeddings('a cat', 0.99)") == "a cat"
    assert one(connection, "select count(*) from notes") == 2
    # Nothing is left to do.
    made.set_up()
    assert capsys.readouterr().err.count("updating") == 0


def test_what_only_refreshing_renews_is_renewed(bare, the_demo, capsys):  # noqa: F811
    """The function belongs to later versions; any version may have it by the time the update is done."""
    connection = bare.connect()
    install(connection, FIRST)
    connection.execute("create function refresh_semantic_search() returns setof text language sql as "
                       "$$ select 'renewed by ' || extversion from pg_extension where extname = 'gte-small' $$")
    try:
        the_demo(bare).set_up()
    except Failure as refused:
        # This version has a function of that name, so the one above is in its way.
        assert "refresh_semantic_search" in str(refused)
        connection.execute("drop function refresh_semantic_search()")
        the_demo(bare).set_up()
        return
    assert f"renewed by {versions.in_work()}" in capsys.readouterr().err


def test_an_interrupted_update_is_repeated(bare, the_demo, monkeypatch):  # noqa: F811
    connection = bare.connect()
    install(connection, FIRST)
    made = the_demo(bare, sql="the fingerprint of 0.1.0")
    with monkeypatch.context() as interrupting:
        interrupting.setattr(contents, "update", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            made.set_up()
    made.set_up()
    assert version(connection) == versions.in_work()


def test_a_demo_without_the_extension_gets_it(bare, the_demo):  # noqa: F811
    the_demo(bare, sql=build.sql_fingerprint()).set_up()
    assert version(bare.connect()) == versions.in_work()


def test_other_sql_of_the_same_version_names_what_a_reset_drops(database, connection, the_demo):
    connection.execute(IMPORTED)
    with pytest.raises(Failure) as refused:
        the_demo(database, sql="another").set_up()
    assert "the extension's SQL is not what this demo was made with" in str(refused.value)
    assert str(refused.value).endswith("make reset would drop these tables:\n" + NAMED)
    connection.execute("drop table notes, mine.\"My table\"")
    with pytest.raises(Failure, match="no table but the demo's own"):
        the_demo(database, sql="another").set_up()


def test_a_newer_demo_is_left_alone(database, connection, the_demo):
    connection.execute(IMPORTED + "; update pg_extension set extversion = '99.0.0' where extname = 'gte-small'")
    made = the_demo(database, sql="a later one")
    with pytest.raises(Failure) as refused:
        made.set_up()
    assert "newer than this clone" in str(refused.value) and NAMED in str(refused.value)
    assert made.memory["sql"] == "a later one" and version(connection) == "99.0.0"


def test_an_update_that_fails_changes_nothing(bare, the_demo):  # noqa: F811
    connection = bare.connect()
    install(connection, FIRST)
    connection.execute(IMPORTED + "; alter extension \"gte-small\" drop function token_count(text)")
    with pytest.raises(Failure) as refused:
        the_demo(bare).set_up()
    assert "not a member of extension" in str(refused.value) and NAMED in str(refused.value)
    assert version(connection) == FIRST


@pytest.mark.parametrize("force", ["", "0", "no"])
@pytest.mark.parametrize("alive", [True, False])
def test_reset_refuses_to_drop_tables(database, connection, the_demo, monkeypatch, force, alive):
    connection.execute(IMPORTED)
    made = the_demo(database)
    made.cluster.alive = alive
    monkeypatch.setenv("FORCE", force)
    with pytest.raises(Failure) as refused:
        demo.reset()
    assert NAMED in str(refused.value) and "FORCE=1" in str(refused.value) and "nothing_in_it" not in str(refused.value)
    assert not made.cluster.destroyed and made.cluster.running() == alive


def test_reset_drops_them_when_forced(database, connection, the_demo, monkeypatch):
    connection.execute(IMPORTED)
    made = the_demo(database)
    monkeypatch.setenv("FORCE", "1")
    demo.reset()
    assert made.cluster.destroyed


def test_reset_drops_the_demos_own_rows(database, tutorial, the_demo):
    tutorial.execute("insert into embeddings (content) values ('a cat')")
    made = the_demo(database)
    demo.reset()
    assert made.cluster.destroyed


def test_reset_of_a_broken_server_wants_force(database, the_demo):
    made = the_demo(database)

    def broken(settings=None):
        raise Failure("the server did not start")
    made.cluster.start = broken
    with pytest.raises(Failure, match="can't be listed; make reset FORCE=1"):
        demo.reset()
    assert not made.cluster.destroyed
