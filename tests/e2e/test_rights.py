"""Rights: row-level security, plain roles, settings that only superusers change."""

import psycopg
import pytest

from measure import counting, embedding, one


@pytest.fixture
def guarded(database, tutorial):
    """Rows of two owners in the tutorial's table, which has row-level security by `sql/embeddings.sql`."""
    tutorial.execute(
        "alter table embeddings add column owner name default current_user; "
        "insert into embeddings (content, owner) values ('a cat', 'gte_reader'), ('a cat', 'gte_owner'), ('a dog', 'gte_reader'); "
        "grant select, insert, update on embeddings to gte_reader, gte_plain"
    )
    return tutorial


SEARCHES = ["query_embeddings(embed('a cat'), 0.9)", "query_embeddings('a cat', 0.9)",
            "query_embeddings(embed('a cat'), 0.9, 10)", "query_embeddings('a cat', 0.9, 10)"]


@pytest.mark.parametrize("search", SEARCHES)
def test_a_role_without_a_policy_finds_nothing(database, guarded, search):
    plain = database.connect("gte_plain")
    assert one(guarded, f"select count(*) from {search}") == 2
    assert plain.execute(f"select * from {search}").fetchall() == []


@pytest.mark.parametrize("search", SEARCHES)
def test_a_role_with_a_policy_finds_its_own_rows(database, guarded, search):
    guarded.execute("create policy own on embeddings for select to gte_reader using (owner = current_user)")
    reader = database.connect("gte_reader")
    assert reader.execute(f"select content, owner from {search}").fetchall() == [("a cat", "gte_reader")]
    assert database.connect("gte_plain").execute(f"select * from {search}").fetchall() == []


def test_a_role_without_select_is_refused(database, tutorial):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.connect("gte_plain").execute(f"select * from {SEARCHES[0]}")


def test_a_plain_role_writes_through_the_trigger(database, guarded):
    guarded.execute(
        "create policy write on embeddings for insert to gte_reader with check (owner = current_user); "
        "create policy read on embeddings for select to gte_reader using (owner = current_user)"
    )
    reader = database.connect("gte_reader")
    reader.execute("insert into embeddings (content) values ('a bird')")
    assert one(reader, "select embedding::text = embed('a bird')::text from embeddings where content = 'a bird'")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("insert into embeddings (content, owner) values ('a bird', 'gte_owner')")


def test_a_plain_role_may_embed_and_look(database):
    plain = database.connect("gte_plain")
    with counting(plain) as counted:
        assert len(embedding(plain, "a cat")) == 384
    assert counted.texts == 1
    name, source = plain.execute("select name, source from embed_model()").fetchone()
    assert name and source is None


def test_the_source_is_shown_to_members_of_pg_read_all_settings(server, database, connection):
    tiny = str(server.tiny)
    assert one(connection, "select source from embed_model()") == tiny
    connection.execute("grant pg_read_all_settings to gte_owner")
    try:
        assert one(database.connect("gte_owner"), "select source from embed_model()") == tiny
    finally:
        connection.execute("revoke pg_read_all_settings from gte_owner")


# --- settings ---


@pytest.mark.parametrize("setting, value", [("memo_size", "5"), ("on_truncate", "error"), ("defer", "on")])
def test_settings_a_plain_role_changes(database, setting, value):
    plain = database.connect("gte_plain")
    embedding(plain, "load the library")
    plain.execute(f"set gte_small.{setting} = {value}")
    assert one(plain, f"show gte_small.{setting}") == value


def test_a_plain_role_does_not_change_the_model(server, database):
    plain = database.connect("gte_plain")
    embedding(plain, "load the library")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        plain.execute("set gte_small.model_path = '/tmp'")


def test_an_early_set_of_the_model_is_refused_on_load(server, database):
    """Before the library is loaded, SET creates a placeholder, which any role may do."""
    plain, superuser = database.connect("gte_plain"), database.connect()
    plain.execute("select set_config('gte_small.model_path', %s, false)", [str(server.tiny_other)])
    assert one(plain, "select embed('a cat')::text") == one(superuser, "select embed('a cat')::text")
    assert one(plain, "select fingerprint from embed_model()") == one(superuser, "select fingerprint from embed_model()")
    assert one(superuser, "show gte_small.model_path") == str(server.tiny)


def test_an_early_connection_option_is_refused_on_load(server, database):
    """The placeholder replaces the configured value: the session uses the default directory or no model, never that path."""
    plain = database.connect("gte_plain", options=f"-c gte_small.model_path={server.tiny_other}")
    notices = []
    plain.add_notice_handler(lambda notice: notices.append(notice.sqlstate))
    superuser = database.connect()
    superuser.execute("select set_config('gte_small.model_path', %s, false)", [str(server.tiny_other)])
    foreign = one(superuser, "select embed('a cat')::text")
    try:
        assert one(plain, "select embed('a cat')::text") != foreign
    except psycopg.errors.UndefinedFile:
        pass
    assert notices == ["42501"]


def test_the_prefix_is_reserved(connection):
    embedding(connection, "load the library")
    with pytest.raises(psycopg.Error) as error:
        connection.execute("set gte_small.no_such_setting = 1")
    assert error.value.sqlstate in ("42602", "42704")


@pytest.mark.parametrize("statement", ["set gte_small.on_truncate = 'sometimes'", "set gte_small.memo_size = -1",
                                       "set gte_small.memo_size = 'many'"])
def test_values_that_make_no_sense(connection, statement):
    embedding(connection, "load the library")
    with pytest.raises(psycopg.Error) as error:
        connection.execute(statement)
    assert error.value.sqlstate == "22023"
