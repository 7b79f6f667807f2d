"""Backfill and status of a column with hidden rows, renamed columns, superusers, standbys and inherited tables."""

import json

import psycopg
import pytest

from backfills import fingerprint, make, missing, note, notices, refused, wrong
from measure import one
from test_backfill import PARTITIONED
from test_status import status

FORCE = "call embed_backfill('docs', force => true)"


def guard(connection, table="docs"):
    """A table whose owner sees ids up to 10."""
    connection.execute(
        f"alter table docs owner to gte_owner; alter table {table} owner to gte_owner;"
        f"alter table {table} enable row level security, force row level security;"
        f"create policy low on {table} using (id <= 10)")


# --- hidden rows ---


@pytest.mark.parametrize("table", ["docs", "docs_1"])
def test_force_is_refused_where_policies_hide_rows_from_the_owner(database, connection, table):
    connection.execute(PARTITIONED)
    connection.execute("call embed_backfill('docs')")
    guard(connection, table)
    before = note(connection)
    connection.execute("grant usage on schema elsewhere to gte_owner; alter table docs_1 owner to gte_owner; alter table docs_3 owner to gte_owner;"
                       "alter table docs_3_rest owner to gte_owner; alter table elsewhere.docs_2 owner to gte_owner")
    owner = database.connect("gte_owner")
    diag = refused(owner, FORCE, "42501")
    assert "row-level security" in diag.message_primary and "BYPASSRLS" in diag.message_hint
    assert note(connection) == before, "nothing was begun"
    owner.execute(diag.message_hint.partition(", or ")[2].removesuffix(" first."))
    owner.execute(FORCE)
    assert wrong(connection) == 0 and "force" not in note(connection)


def test_force_ends_where_policies_begin_to_hide_rows(connection):
    make(connection, 300)
    connection.execute("call embed_backfill('docs')")
    # The backfill runs the owner's trigger, which here acts for another session: it sets the role that the rows are hidden from.
    connection.execute("""alter table docs enable row level security;
        grant gte_owner to postgres; alter table docs owner to gte_owner;
        create function becomes_owner() returns trigger language plpgsql as $$
            begin perform set_config('role', 'gte_owner', false); return new; end $$;
        create trigger becomes_owner before update on docs for each row when (new.id = 1) execute function becomes_owner();
        alter table docs force row level security""")
    try:
        assert "row-level security" in refused(connection, FORCE, "42501").message_primary
    finally:
        connection.execute("reset role; revoke gte_owner from postgres")
    assert status(connection)["state"] == "re-embedding"


def test_status_and_verification_say_that_they_saw_a_part(database, connection):
    make(connection, 40)
    connection.execute("call embed_backfill('docs')")
    guard(connection)
    owner = database.connect("gte_owner")
    told = status(owner)
    assert told["rows"] == 10 and any("row-level security" in hint for hint in told["hints"])
    with notices(owner) as heard:
        assert one(owner, "select checked from embed_verify('docs')") == 10
    assert [severity for severity, message in heard if "row-level security" in message] == ["NOTICE"]
    assert not any("row-level security" in hint for hint in status(connection)["hints"])
    with notices(connection) as heard:
        assert one(connection, "select checked from embed_verify('docs')") == 40
    assert heard == []


# --- vectors of other text columns ---


def mark(connection, **keys):
    trigger = one(connection, "select format('%I on docs', trigger_name) from embedding_columns('docs')")
    text = "gte-small " + json.dumps({**note(connection), **keys})
    connection.execute(f"comment on trigger {trigger} is '{text}'")


def test_embeddings_of_other_columns_are_stale_until_all_are_made_again(database, connection):
    make(connection, 60)
    connection.execute("call embed_backfill('docs')")
    mark(connection, outdated=True)
    told = status(connection)
    assert (told["state"], told["stale"]) == ("stale", 60)
    hint = next(hint for hint in told["hints"] if "other columns" in hint)
    connection.execute("call embed_backfill('docs')")
    assert status(connection)["state"] == "stale", "only missing rows were embedded"

    holder = database.connect(autocommit=False)
    holder.execute("select from docs where id = 7 for update")
    connection.execute(hint.partition(": ")[2])
    assert note(connection)["outdated"] is True and status(connection)["state"] == "re-embedding"
    holder.rollback()
    connection.execute(hint.partition(": ")[2])
    assert "outdated" not in note(connection) and status(connection)["state"] == "current"


def test_a_walk_over_other_columns_is_not_gone_on_with(database, connection):
    make(connection, 60)
    connection.execute("call embed_backfill('docs')")
    holder = database.connect(autocommit=False)
    holder.execute("select from docs where id = 59 for update")
    connection.execute(FORCE)
    holder.rollback()
    assert note(connection)["force"]["content"] == ["content"]
    kept = note(connection)
    connection.execute("alter table docs add title text; set session_replication_role = replica;"
                       "update docs set title = 'title ' || id; reset session_replication_role;"
                       "drop trigger zzz_gte_small_embedding on docs; create trigger zzz_gte_small_embedding before insert or update "
                       "on docs for each row execute function embed_trigger('embedding', 'title')")
    connection.execute("comment on trigger zzz_gte_small_embedding on docs is 'gte-small " + json.dumps({**kept, "outdated": True}) + "'")
    connection.execute(FORCE)
    assert wrong(connection, text="title") == 0 and note(connection)["fingerprint"] == fingerprint(connection)


# --- dropped columns ---


@pytest.mark.parametrize("change, named", [("drop embedding", "embedding"), ("drop content", "content")])
def test_a_column_that_is_gone_is_reported(connection, change, named):
    make(connection, 20)
    connection.execute("call embed_backfill('docs')")
    connection.execute("alter table docs add title text, add of_title vector(384);"
                       "select enable_semantic_search('docs', '{title}', 'of_title', false, 'query_titles')")
    connection.execute(f"alter table docs {change}")
    told = {row[0]: row[1:] for row in connection.execute(
        "select embedding, state, rows, embedded, missing, stale, index_present, hints from embedding_status('docs')")}
    assert told["of_title"][:2] == ("empty", 20), "other columns are reported as ever"
    assert told["embedding"][:6] == ("broken", None, None, None, None, False)
    mending, ending = told["embedding"][6]
    assert f"no column {named}," in mending and "enable_semantic_search" in mending
    for statement in ("call embed_backfill('docs')", "select embed_backfill_step('docs')", FORCE, "select * from embed_verify('docs')",
                      "select suggest_threshold('docs', 'embedding')"):
        diag = refused(connection, statement, "42703")
        assert f"column {named} " in diag.message_primary and "enable_semantic_search" in diag.message_hint
    connection.execute("call embed_backfill('docs', embedding => 'of_title')")
    connection.execute("drop trigger" + ending.partition("DROP TRIGGER")[2])
    left = dict(connection.execute("select embedding, state from embedding_status('docs')").fetchall())
    assert left == ({"of_title": "empty"} if named == "embedding" else {"of_title": "empty", "embedding": "no trigger"})


# --- a superuser and the table of another role ---


def test_a_superuser_is_warned_of_another_owners_triggers(database, connection):
    make(connection, 20)
    with notices(connection) as heard:
        connection.execute("call embed_backfill('docs')")
    assert "WARNING" not in [severity for severity, _ in heard], "his own table"
    connection.execute("alter table docs owner to gte_owner; set gte_small.own_vectors = on; update docs set embedding = null")
    with notices(connection) as heard:
        connection.execute("select embed_backfill_step('docs')")
        connection.execute("call embed_backfill('docs')")
    assert [message for severity, message in heard if severity == "WARNING"] == 2 * [
        "a superuser is writing to table public.docs of gte_owner"]
    connection.execute("set role gte_owner")
    with notices(connection) as heard:
        connection.execute("call embed_backfill('docs')")
    assert "WARNING" not in [severity for severity, _ in heard]


# --- read-only servers ---


def test_a_read_only_transaction_is_refused(database, connection):
    make(connection, 20)
    connection.execute("set default_transaction_read_only = on")
    for call in ("call embed_backfill('docs')", FORCE, "select embed_backfill_step('docs')"):
        diag = refused(connection, call, "25006")
        assert "read-only" in diag.message_primary
    connection.execute(diag.message_hint.partition(",")[0])
    connection.execute("call embed_backfill('docs')")
    assert missing(connection) == 0


def test_a_standby_is_refused(server):
    with server.another("standby", {}) as cluster:
        cluster.psql("create table docs (content text); insert into docs values ('a'); select enable_semantic_search('docs')")
        cluster.stop()
        (cluster.data / "standby.signal").touch()
        cluster.start()
        with psycopg.connect(cluster.dsn(dbname="postgres", user="postgres"), autocommit=True) as standby:
            for call in ("call embed_backfill('docs')", FORCE, "select embed_backfill_step('docs')"):
                diag = refused(standby, call, "25006")
                assert "standby" in diag.message_primary and "primary" in diag.message_hint
            assert one(standby, "select missing from embedding_status('docs')") == 1


# --- inheritance ---


def test_children_by_inheritance_are_other_tables_for_all(connection):
    make(connection, 30)
    connection.execute("create table child () inherits (docs); insert into child select i, 'child ' || i from generate_series(1, 20) i")
    assert (status(connection)["rows"], status(connection)["missing"]) == (30, 30)
    assert one(connection, "select checked from embed_verify('docs')") == 30
    connection.execute("call embed_backfill('docs')")
    connection.execute(FORCE)
    assert missing(connection, "child") == 20 and missing(connection, "only docs") == 0
    assert (status(connection)["state"], status(connection)["rows"], status(connection)["missing"]) == ("current", 30, 0)
    assert one(connection, "select missing from embed_verify('docs')") == 0
