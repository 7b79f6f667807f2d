"""Several sessions write one note: no session fails or waits, and nothing that was committed is lost.

`lock_timeout` detects waiting: a session that would wait fails. When many sessions insert at once, `log_lock_waits` detects
it, because they sometimes wait for a lock of PostgreSQL itself: the lock for adding a page to the table.
"""

import threading

import psycopg
import pytest

from measure import one
from test_note import EMBEDS, TABLE, TRIGGER, comment, describe, fingerprint, note, use, warnings, write

SESSIONS, ROUNDS = 6, 60


@pytest.fixture
def docs(connection):
    connection.execute(TABLE.format("docs"))
    describe(connection, {})
    return connection


def impatient(database):
    session = database.connect()
    session.execute("set lock_timeout = '1ms'; set deadlock_timeout = '10s'")
    return session


def watched(database, waits):
    """Keeps every wait of over a millisecond in `waits`, except waits for adding a page."""
    session = database.connect()

    def heard(notice):
        if "still waiting for" in notice.message_primary and " on extension of " not in notice.message_primary:
            waits.append(notice.message_primary)

    session.add_notice_handler(heard)
    session.execute("set log_lock_waits = on; set deadlock_timeout = '1ms'; set lock_timeout = '10s'; "
                    "set client_min_messages = log")
    return session


def test_a_wait_is_seen(database, docs):
    """Takes each of the conditions that the test of many sessions checks."""
    waits = []
    first, second = database.connect(), watched(database, waits)
    first.execute("begin; lock table docs")
    second.execute("set lock_timeout = '100ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        write(second)
    assert len(waits) == 1


def test_two_first_writers(database, docs):
    """The second session leaves the note to the first. It would create the note if the first rolled back."""
    first, second = impatient(database), impatient(database)
    for end, left in (("rollback", {}), ("commit", None)):
        first.execute("begin")
        write(first)
        write(second)
        assert note(second) == {}
        first.execute(end)
        assert note(second) == ({"fingerprint": fingerprint(second)} if left is None else left)
    describe(docs, {})
    write(second)
    assert note(second) == {"fingerprint": fingerprint(second)}


def test_two_models_at_once(server, database, docs):
    """The second session can't record its other model yet. Its next row after the first session's commit does."""
    first, second = impatient(database), impatient(database)
    use(second, server.tiny_other)
    own, said = fingerprint(first), warnings(second)
    first.execute("begin")
    write(first)
    second.execute("begin")
    write(second)
    first.execute("commit")
    assert said == []
    write(second)
    assert note(second) == {"fingerprint": own, "mixed": True} and len(said) == 1
    write(first)
    second.execute("commit")
    assert note(first) == {"fingerprint": own, "mixed": True}


def test_a_mark_that_has_to_wait_is_said_at_once(server, database, docs):
    write(docs)
    first, second = impatient(database), impatient(database)
    for session in (first, second):
        use(session, server.tiny_other)
    said = warnings(second)
    first.execute("begin")
    write(first)
    write(second)
    assert len(said) == 1 and "mixed" not in note(second)
    first.execute("rollback")
    write(second)
    assert len(said) == 1 and note(second)["mixed"] is True


def test_beside_an_open_comment_on_the_trigger(database, docs):
    owner, writer = database.connect(), impatient(database)
    owner.execute("begin")
    describe(owner, {"search_function": "query_docs"})
    write(writer)
    assert note(writer) == {}
    owner.execute("commit")
    write(writer)
    assert note(writer) == {"search_function": "query_docs", "fingerprint": fingerprint(writer)}


def test_an_open_write_holds_up_the_comment_alone(database, docs):
    writer, owner = database.connect(), impatient(database)
    writer.execute("begin")
    write(writer)
    for statement in ("vacuum analyze docs", "alter table docs alter embedding set statistics 10", "select * from docs",
                      "create statistics docs_statistics on id, content from docs"):
        owner.execute(statement)
    with pytest.raises(psycopg.errors.LockNotAvailable):
        describe(owner, {"search_function": "query_docs"})
    writer.execute("commit")
    describe(owner, {"search_function": "query_docs"})


def test_what_vacuum_locks_does_not_hold_up_the_note(database, docs):
    vacuum, writer = database.connect(), impatient(database)
    vacuum.execute("begin; lock table docs in share update exclusive mode")
    write(writer)
    assert note(writer) == {"fingerprint": fingerprint(writer)}
    vacuum.execute("rollback")


def test_a_trigger_that_is_being_dropped(database, connection):
    """The parent's trigger is dropped while another session writes to a partition."""
    connection.execute(
        "create table docs (id int, content text, embedding vector(384)) partition by range (id); "
        "create table low partition of docs for values from (0) to (10); " + EMBEDS.format("docs")
    )
    describe(connection, {})
    writer, owner = impatient(database), impatient(database)
    writer.execute("begin; insert into low values (1, 'a cat')")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        owner.execute(f"drop trigger {TRIGGER} on docs")
    writer.execute("commit")
    owner.execute(f"drop trigger {TRIGGER} on docs")
    assert one(connection, "select count(*) from pg_description where classoid = 'pg_trigger'::regclass") == 0
    writer.execute("insert into low values (2, 'a dog')")
    assert one(writer, "select embedding is null from low where id = 2")


def in_threads(together, works):
    """Runs each function in its own thread. The first error is the test's error and ends the wait of the others."""
    errors = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)
            together.abort()

    threads = [threading.Thread(target=guarded, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("transaction", [False, True], ids=["statements", "transactions"])
def test_many_at_the_same_moment(server, database, docs, transaction):
    """Writers of both models and an owner who comments, repeatedly. A mistake would raise "tuple concurrently updated"."""
    waits = []
    sessions = [watched(database, waits) for _ in range(SESSIONS)]
    owner = database.connect()
    for session in sessions[::2]:
        use(session, server.tiny_other)
    for session in sessions:
        write(session, "warmed up")
    together = threading.Barrier(SESSIONS + 1, timeout=60)
    seen = []

    def writes(session):
        for number in range(ROUNDS):
            together.wait()
            if transaction:
                with session.transaction():
                    write(session, f"{number}")
                    session.execute("update docs set content = content || '!' where id = currval('docs_id_seq')")
            else:
                write(session, f"{number}")
            together.wait()

    def comments():
        for number in range(ROUNDS):
            describe(owner, {"round": number})
            together.wait()
            if number % 2:
                describe(owner, {"round": number, "again": True})
            together.wait()
            seen.append(note(owner))

    in_threads(together, [lambda session=session: writes(session) for session in sessions] + [comments])
    assert waits == []
    assert [value["round"] for value in seen] == list(range(ROUNDS))
    assert any("fingerprint" in value for value in seen)
    for session in sessions[:2]:
        write(session)
    assert note(owner)["mixed"] is True
    assert comment(owner)[0].startswith("gte-small {")
    assert one(owner, "select count(*) from docs where embedding is null") == 0
