"""SQL and library of different versions: one warning per session, at its first use of the model."""

import pytest

import versions
from measure import one
from test_note import warnings
from test_parallel import in_workers
from test_upgrade import FIRST, bare, install  # noqa: F401  a fixture

OLD = f'extension "gte-small" has version {FIRST} in this database, and its library has version {versions.in_work()}'


@pytest.fixture
def old(bare):  # noqa: F811
    """Opens sessions of a database that stays on the first version; each keeps what the server says."""
    install(bare.connect(), FIRST)

    def session(**options):
        connection = bare.connect(**options)
        return connection, warnings(connection)
    return session


def pretend(connection, version):
    """Writes the version into the catalogue, as superusers can."""
    connection.execute("update pg_extension set extversion = %s where extname = 'gte-small'", [version])


def test_sql_that_is_older_is_named_once(old):
    connection, said = old()
    connection.execute("select 1; select count(*) from embed_stats()")
    assert said == []
    assert one(connection, "select vector_dims(embed('a cat'))") == 384
    assert [warning.fact for warning in said] == [OLD]
    assert said[0].sqlstate == "01000"
    assert said[0].detail == ("Functions of version 0.1.0 work as before. "
                                      f"What version {versions.in_work()} added or mended in SQL is missing.")
    assert said[0].hint == 'As a superuser, run: ALTER EXTENSION "gte-small" UPDATE'
    connection.execute("select embed('a dog'); select embed(array['a bee', 'a fly']); select name from embed_model(); "
                       "create table docs (content text); select enable_semantic_search('docs'); insert into docs values ('a cat')")
    assert len(said) == 1
    # The statement of the hint ends it.
    connection.execute(said[0].hint.partition("run: ")[2])
    connection, said = old()
    connection.execute("select embed('a cat')")
    assert said == []


def test_nothing_is_said_of_equal_versions(connection):
    said = warnings(connection)
    connection.execute("select embed('a cat')")
    assert said == []


@pytest.mark.parametrize("version", ["99.0.0", "0.2.1", "0.2.0.1", "0.10.0"])
def test_sql_that_is_newer_wants_another_library(database, connection, version):
    pretend(connection, version)
    said = warnings(connection)
    connection.execute("select embed('a cat')")
    assert [warning.fact for warning in said] == [OLD.replace(FIRST, version)]
    assert "shared_preload_libraries" in said[0].hint and version in said[0].hint


@pytest.mark.parametrize("version", ["0.1.9", "0.2", "", "dev", "0.2.0-ü", "99999999999999999999"])
def test_another_form_of_version_wants_an_update(connection, version):
    pretend(connection, version)
    said = warnings(connection)
    connection.execute("select embed('a cat')")
    assert len(said) == 1 and "UPDATE" in said[0].hint and f"has version {version} " in said[0].fact


def test_a_library_without_the_extension(connection):
    connection.execute("create schema own; create function own.embed(text) returns vector strict language c as '$libdir/gte-small', 'embed_gte_small'")
    connection.execute('drop extension "gte-small"')
    said = warnings(connection)
    assert one(connection, "select vector_dims(own.embed('a cat'))") == 384
    assert said == []


def test_the_first_use_may_be_anywhere(old):
    """A trigger, an index build, a subtransaction, a read-only transaction, after an error."""
    connection, _ = old()
    connection.execute("create table docs (content text); select enable_semantic_search('docs'); create table texts (t text); "
                       "insert into texts select 'text ' || i from generate_series(1, 50) i")
    for statement in ["insert into docs values ('a cat')",
                      "create index on texts using hnsw ((embed(t)::vector(384)) vector_ip_ops)",
                      "do $$ begin begin perform embed('a'), 1 / 0; exception when division_by_zero then perform embed('b'); end; end $$",
                      "begin read only; select embed('a cat'); commit",
                      "begin isolation level serializable; select embed('a cat'); commit",
                      "declare c cursor with hold for select embed('a cat'); fetch c",
                      "set client_min_messages = warning; select embed(null), embed('x')"]:
        connection, said = old()
        connection.execute(statement)
        connection.execute("select embed('again')")
        assert [warning.fact for warning in said] == [OLD], statement
    connection, said = old(autocommit=False)
    with pytest.raises(Exception, match="division by zero"):
        connection.execute("select 1 / 0, embed('a cat')")
    connection.rollback()
    connection.execute("select embed('a cat')")
    assert len(said) == 1


def test_parallel_workers_say_nothing(old):
    connection, _ = old()
    connection.execute("create table sentences as select i as id, 'row ' || i as content from generate_series(1, 200) i; "
                       "alter table sentences set (parallel_workers = 2); analyze sentences")
    connection, said = old()
    assert len(in_workers(connection)) == 200
    assert said == []
    connection.execute("select embed('a cat')")
    assert [warning.fact for warning in said] == [OLD]


def test_it_waits_for_no_lock(old):
    """While another session rewrites pg_extension, nothing is said; a later call makes up for it."""
    blocker, _ = old()
    blocker.execute("begin; lock pg_extension in access exclusive mode")
    connection, said = old()
    connection.execute("set lock_timeout = '1s'")
    assert one(connection, "select token_count('a cat')") == 4 and said == []
    blocker.execute("rollback")
    assert one(connection, "select token_count('a cat')") == 4 and len(said) == 1
