"""Document search is enabled, changed and disabled beside an application that reads and writes: nobody deadlocks."""

import threading

import psycopg
import pytest

from measure import one, wait_until


@pytest.fixture
def manuals(connection):
    connection.execute("create table manuals (id int primary key, title text, body text); insert into manuals values (1, 'Pets', 'a cat'); "
                       "select enable_document_search('manuals', 'body')")
    return connection


READS = {
    "search": "select count(*) from query_manuals('a cat')",
    "documents": "select count(*) from manuals",
    "chunks": "select count(*) from manuals_chunks c join manuals e on e.id = c.document_id",
    "write": "insert into manuals (id, body) values (2, 'a dog')",
}
CHANGES = {
    "context": "select enable_document_search('manuals', 'body', 'title')",
    "again": "select enable_document_search('manuals', 'body')",
    "columns": "select enable_document_search('manuals', 'title, body')",
    "missing": "drop policy of_visible_documents on manuals_chunks; select enable_document_search('manuals', 'body')",
    "owner": "alter table manuals owner to gte_plain; select enable_document_search('manuals', 'body')",
    "disable": "select disable_document_search('manuals')",
}


def waits(watcher, pid):
    return one(watcher, "select count(*) from pg_locks where pid = %s and not granted", [pid]) > 0


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("read", READS)
def test_the_application_is_not_ended(database, manuals, read, change):
    """It reads or writes, and then writes, in one transaction. The change begins between the two."""
    statements = CHANGES[change].split("; ")
    for statement in statements[:-1]:
        manuals.execute(statement)
    changer = database.connect()
    pid = changer.info.backend_pid
    outcome = []

    def run():
        try:
            changer.execute(statements[-1])
            outcome.append("done")
        except psycopg.Error as error:
            outcome.append(error.sqlstate)

    application = database.connect(autocommit=False)
    application.execute("set deadlock_timeout = '20ms'")
    application.execute(READS[read])
    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: outcome or waits(manuals, pid))
    application.execute("insert into manuals (id, body) values (3, 'a cow')")
    application.execute("update manuals set body = 'a calf' where id = 3")
    application.commit()
    thread.join(60)
    assert outcome == ["done"]
    assert one(manuals, "select body from manuals where id = 3") == "a calf"
    if change != "disable":
        assert one(manuals, "select count(*) from manuals_chunks where document_id = 3") == 1


def test_two_sessions_enable_at_once(database, manuals):
    first, second = database.connect(autocommit=False), database.connect()
    first.execute(CHANGES["context"])
    outcome = []

    def run():
        second.execute(CHANGES["columns"])
        outcome.append("done")

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: waits(manuals, second.info.backend_pid))
    first.commit()
    thread.join(60)
    assert outcome == ["done"]
    assert one(manuals, "select string_agg(content, ',') from manuals_chunks") == "Pets\na cat"


def test_a_lock_timeout_is_explained(database, manuals):
    application = database.connect(autocommit=False)
    application.execute("insert into manuals (id, body) values (2, 'a dog')")
    manuals.execute("set lock_timeout = '50ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable, match="public.manuals is in use") as error:
        manuals.execute(CHANGES["again"])
    assert error.value.diag.message_detail and error.value.diag.message_hint
    application.commit()
