"""ALTER ROLE ... SET and ALTER DATABASE ... SET of this extension's settings: who may do it, and when it takes effect. PostgreSQL
knows a setting only after the library was loaded in the session, which the first call of a function does."""

import contextlib

import psycopg
import pytest

from measure import one


@pytest.fixture
def plain(database):
    return database.connect("gte_plain")


def setting(database, name="gte_small.defer", user="gte_plain"):
    """Its value in a new session that has loaded the library."""
    connection = database.connect(user)
    connection.execute("select embed_stats()")
    return one(connection, f"show {name}")


@contextlib.contextmanager
def own_setting(database):
    """For every database, as `alter role app set` has it; removed at the end."""
    yield "alter role gte_plain set gte_small.defer = on"
    database.server.execute("alter role gte_plain reset all")


def test_a_role_sets_its_own_setting_after_a_call(database, plain):
    with own_setting(database) as statement:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            plain.execute(statement)
        plain.execute("select embed_stats()")
        plain.execute(statement)
        assert setting(database) == "on"


def test_a_superuser_sets_it_in_any_session(database):
    with own_setting(database) as statement:
        database.connect().execute(statement)
        assert setting(database) == "on"


def test_a_role_with_the_privilege_sets_it_in_any_session(database, plain):
    with own_setting(database) as statement:
        superuser = database.connect()
        superuser.execute("grant set on parameter gte_small.defer to gte_plain")
        try:
            plain.execute(statement)
            assert setting(database) == "on"
        finally:
            superuser.execute("revoke set on parameter gte_small.defer from gte_plain")


def test_a_session_that_loads_the_library_at_its_begin(database):
    database.configure("session_preload_libraries", "gte-small")
    with own_setting(database) as statement:
        database.connect("gte_plain").execute(statement)
        assert setting(database) == "on"


def test_the_owner_of_a_database(database, plain):
    superuser = database.connect()
    superuser.execute(f"alter database {database.name} owner to gte_plain")
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            plain.execute(f"alter database {database.name} set gte_small.defer = on")
        plain.execute("select embed_stats()")
        plain.execute(f"alter database {database.name} set gte_small.defer = on")
        assert setting(database, user="gte_reader") == "on"
        # The model is a superuser's to choose, or that of a role with the privilege.
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            plain.execute(f"alter database {database.name} set gte_small.model_path = '/elsewhere'")
        superuser.execute("grant set on parameter gte_small.model_path to gte_plain")
        try:
            plain.execute(f"alter database {database.name} set gte_small.model_path = '{database.server.tiny_other}'")
        finally:
            superuser.execute("revoke set on parameter gte_small.model_path from gte_plain")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            setting(database, "gte_small.model_path", user="gte_reader")
        assert setting(database, "gte_small.model_path", user="postgres") == str(database.server.tiny_other)
    finally:
        superuser.execute(f"alter database {database.name} owner to postgres")


def test_a_set_before_the_first_call_counts(database, plain):
    plain.execute("set gte_small.defer = on")
    plain.execute("select embed_stats()")
    assert one(plain, "show gte_small.defer") == "on"


def test_a_misspelt_setting_is_removed_with_a_warning(database):
    superuser = database.connect()
    superuser.execute(f"alter database {database.name} set gte_small.defered = on")
    session = database.connect("gte_plain")
    heard = []
    session.add_notice_handler(lambda d: heard.append((d.severity_nonlocalized, d.message_primary)))
    session.execute("select embed_stats()")
    (severity, said), = heard
    assert severity == "WARNING" and "gte_small.defered" in said
