"""Enabling and disabling take the strong lock at once: a writer in an open transaction never dies of a deadlock."""

import threading

import psycopg
import pytest

from measure import one, wait_until

WAITS = "select count(*) from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"

PLAIN = "create table docs (id int primary key, content text, title text)"
PARTS = ("create table docs (id int, content text, title text) partition by range (id); "
         "create table docs_2 partition of docs for values from (100) to (200); "
         "create table docs_1 partition of docs for values from (0) to (100)")

CHANGES = {
    "enable": ("", "select enable_semantic_search('docs')"),
    "other columns": ("select enable_semantic_search('docs')", "select enable_semantic_search('docs', 'title, content')"),
    "other options": ("select enable_semantic_search('docs')", "select enable_semantic_search('docs', index_options => '{\"m\": 24}')"),
    "another language": ("select enable_semantic_search('docs')", "select enable_semantic_search('docs', text_search => 'german')"),
    "renamed column": ("select enable_semantic_search('docs'); alter table docs rename embedding to vec", "select enable_semantic_search('docs', embedding => 'vec')"),
    "disabled trigger": ("select enable_semantic_search('docs'); alter table docs disable trigger user", "select enable_semantic_search('docs')"),
    "disable": ("select enable_semantic_search('docs')", "select disable_semantic_search('docs')"),
    "refresh": ("select enable_semantic_search('docs'); alter table docs rename content to body", "select * from refresh_semantic_search()"),
}


def waits_or_is_done(watcher, session, thread):
    return not thread.is_alive() or one(watcher, WAITS, [session.info.backend_pid]) == 1


@pytest.mark.parametrize("table", [PLAIN, PARTS], ids=["plain", "partitioned"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_writer_goes_on_while_the_change_waits(database, table, change):
    setup, statement = CHANGES[change]
    watcher, writer, owner = database.connect(), database.connect(autocommit=False), database.connect()
    watcher.execute(f"{table}; set default_text_search_config = 'english'; {setup}")
    # First it only reads: a change that takes a weak lock first gets it, and then waits for the writer's.
    writer.execute("select count(*) from docs")
    failures = []

    def run():
        try:
            owner.execute(statement)
        except psycopg.Error as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: waits_or_is_done(watcher, owner, thread))
    for row in (1, 101, 2, 102):
        writer.execute("insert into docs (id) values (%s)", (row,))
    writer.commit()
    thread.join()
    assert failures == []
    assert one(watcher, "select count(*) from docs") == 4


@pytest.mark.parametrize("table", [PLAIN, PARTS], ids=["plain", "partitioned"])
def test_enabling_again_waits_for_no_writer(database, table):
    owner, writer = database.connect(), database.connect(autocommit=False)
    owner.execute(f"{table}; select enable_semantic_search('docs')")
    writer.execute("insert into docs (id, content) values (1, 'a cat')")
    owner.execute("set lock_timeout = '2s'; select enable_semantic_search('docs'); select * from refresh_semantic_search()")
    writer.execute("insert into docs (id, content) values (101, 'a dog')")
    writer.commit()


def test_a_column_that_was_added_changes_functions_only(database):
    owner, writer = database.connect(), database.connect(autocommit=False)
    owner.execute(f"{PLAIN}; select enable_semantic_search('docs'); alter table docs add n int")
    writer.execute("insert into docs (id, content) values (1, 'a cat')")
    owner.execute("set lock_timeout = '2s'; select enable_semantic_search('docs')")
    writer.commit()
    assert one(owner, "select n from search_docs('a cat', 1)") is None


def test_lock_timeout_says_what_to_do(database):
    owner, writer = database.connect(), database.connect(autocommit=False)
    owner.execute(PLAIN)
    writer.execute("insert into docs (id, content) values (1, 'a cat')")
    with pytest.raises(psycopg.errors.LockNotAvailable, match="is in use") as error:
        owner.execute("set lock_timeout = '100ms'; select enable_semantic_search('docs')")
    assert "ACCESS EXCLUSIVE" in error.value.diag.message_detail
    statement = error.value.diag.message_hint.split(": ", 1)[1]
    assert writer.info.backend_pid in [row[0] for row in owner.execute(statement).fetchall()]
    writer.commit()
    owner.execute("select enable_semantic_search('docs')")


@pytest.mark.parametrize("statement", ["select enable_semantic_search('docs')", "select disable_semantic_search('docs')"])
def test_a_read_only_transaction_is_refused(connection, statement):
    connection.execute(f"{PLAIN}; select enable_semantic_search('docs'); set default_transaction_read_only = on")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="read-only") as error:
        connection.execute(statement)
    assert "default_transaction_read_only" in error.value.diag.message_hint
