"""embed_backfill together with other sessions: other backfills, writers, DDL, kills and crashes."""

import contextlib
import json
import os
import pathlib
import random
import threading
import time

import psycopg
import pytest

import postgres
from backfills import fingerprint, make, missing, note, notices, refused, wait_for, wrong
from measure import one
from test_backfill import PARTITIONED

# The contract: no session waits longer for a lock of a backfill.
LONGEST_WAIT = 2.0


class Worker(threading.Thread):
    """A thread with its own connection; `join` raises the error of the thread."""

    def __init__(self, database, work):
        super().__init__()
        self.connection, self._work, self.error, self.result = database.connect(), work, None, None

    def run(self):
        try:
            self.result = self._work(self.connection)
        except BaseException as error:
            self.error = error

    def join(self, timeout=120):
        super().join(timeout)
        assert not self.is_alive(), "a session hangs"
        if self.error:
            raise self.error


@contextlib.contextmanager
def working(database, *works):
    workers = [Worker(database, work) for work in works]
    for worker in workers:
        worker.start()
    try:
        yield workers
    finally:
        for worker in workers:
            worker.join()


def backfill(connection, call="call embed_backfill('docs')"):
    connection.execute("set gte_small.memo_size = 0")
    connection.execute(call)
    return one(connection, "select texts from embed_stats()")


def test_sessions_share_a_table(database, connection):
    make(connection, 6000)
    with working(database, backfill, backfill, backfill) as workers:
        pass
    texts = [worker.result for worker in workers]
    assert missing(connection) == 0 and wrong(connection) == 0
    assert sum(texts) == 6000, f"no row is embedded twice: {texts}"
    assert min(texts) > 0, texts


def test_rows_others_have_locked_are_skipped_and_come_later(database, connection):
    make(connection, 300)
    holder = database.connect(autocommit=False)
    holder.execute("select from docs where id between 100 and 120 for update")
    with working(database, backfill) as (worker,):
        wait_for(lambda: missing(connection) == 21)
        assert worker.is_alive()
        holder.rollback()
    assert missing(connection) == 0 and wrong(connection) == 0


def test_rows_that_stay_locked_are_left_out_with_a_notice(database, connection):
    make(connection, 300)
    holder = database.connect(autocommit=False)
    holder.execute("select from docs where id between 100 and 120 for update")
    with notices(connection) as heard:
        connection.execute("call embed_backfill('docs')")
    assert any("21 rows" in message and "locked" in message for _, message in heard), heard
    assert missing(connection) == 21
    holder.rollback()
    connection.execute("call embed_backfill('docs')")
    assert wrong(connection) == 0


class Writer:
    """Repeats a statement with other rows until it is stopped; counts the statements and keeps the longest time."""

    def __init__(self, statement, setting="set gte_small.memo_size = 0"):
        self.statement, self.setting, self.stopped = statement, setting, threading.Event()
        self.chance, self.count, self.longest = random.Random(statement), 0, 0.0

    def __call__(self, connection):
        connection.execute(self.setting)
        while not self.stopped.is_set():
            number = self.chance.randrange(1, 4001)
            began = time.monotonic()
            connection.execute(self.statement, {"id": number, "n": self.count})
            self.longest = max(self.longest, time.monotonic() - began)
            self.count += 1
            time.sleep(0.001)


def writers():
    return [
        Writer("update docs set content = 'changed ' || %(n)s::int where id = %(id)s"),
        Writer("update docs set content = content || '!' where id between %(id)s and %(id)s + 3"),
        Writer("update docs set content = 'deferred ' || %(n)s::int where id = %(id)s", "set gte_small.defer = on"),
        Writer("update docs set hits = hits + 1 where id = %(id)s"),
        Writer("insert into refers select %(id)s::int where %(id)s <= 3500 on conflict do nothing"),
        Writer("delete from docs where id = %(id)s and id > 3500"),
        Writer("insert into docs (id, content) values (%(id)s, 'again ' || %(n)s::int) on conflict do nothing"),
    ]


@pytest.mark.parametrize("call", ["call embed_backfill('docs')", "call embed_backfill('docs', force => true)"], ids=["missing", "force"])
def test_writers_and_backfills_at_once(database, connection, call):
    """No vector is outdated, no row is lost, and no session waits long."""
    make(connection, 4000, "id int primary key, content text, hits int default 0",
         "select i, 'text ' || i from generate_series(1, {}) i")
    connection.execute("create table refers (doc int primary key references docs (id) check (doc <= 3500))")
    force = "force" in call
    if force:
        connection.execute("call embed_backfill('docs')")
        connection.execute("update docs set embedding = array_fill(0.051031, array[384])::vector")
    there = writers()
    with working(database, *there):
        try:
            wait_for(lambda: all(writer.count > 5 for writer in there))
            with working(database, *([lambda c: backfill(c, call)] * (1 if force else 2))) as workers:
                pass
        finally:
            for writer in there:
                writer.stopped.set()
    counts = {writer.statement: (writer.count, round(writer.longest, 3)) for writer in there}
    print(call, counts, [worker.result for worker in workers])
    assert all(count > 20 for count, _ in counts.values()), counts
    assert all(longest < LONGEST_WAIT for _, longest in counts.values()), counts
    assert one(connection, "select count(*) from docs where embedding is not null and embedding <> embed(content)") == 0
    # Rows that were deferred after the last pass.
    connection.execute("call embed_backfill('docs')")
    assert missing(connection) == 0 and wrong(connection) == 0
    assert one(connection, "select count(*) from docs where id <= 3500") == 3500
    assert one(connection, "select state from embedding_status('docs')") == "current"


def test_a_partition_dropped_or_detached_meanwhile_is_left_alone(database, connection):
    connection.execute(PARTITIONED)
    connection.execute("insert into docs (id, content) select 1 + i % 99, 'more ' || i from generate_series(1, 3000) i")
    blocker = database.connect(autocommit=False)
    blocker.execute("drop table docs_3; alter table docs detach partition elsewhere.docs_2")
    with working(database, backfill) as (worker,):
        wait_for(lambda: one(connection, "select count(*) from pg_stat_activity where pid = %s and wait_event_type = 'Lock'",
                             [worker.connection.info.backend_pid]) == 1)
        blocker.commit()
    assert missing(connection) == 0 and wrong(connection) == 0
    assert missing(connection, "elsewhere.docs_2") == 100


def test_a_partition_attached_meanwhile_is_filled(database, connection):
    connection.execute(PARTITIONED)
    connection.execute("create table docs_4 (like docs); insert into docs_4 (id, content) select 400, 'new ' || i from generate_series(1, 50) i")
    holder = database.connect(autocommit=False)
    holder.execute("select from docs where id = 5 for update")
    with working(database, backfill):
        wait_for(lambda: missing(connection) == 1)
        connection.execute("alter table docs attach partition docs_4 for values from (400) to (500)")
        wait_for(lambda: missing(connection) == 1 and one(connection, "select count(*) from docs") == 450)
        holder.rollback()
    assert missing(connection) == 0 and wrong(connection) == 0


def test_progress_is_visible_to_another_session(database, connection):
    make(connection, 6000)
    seen = set()
    with working(database, backfill) as (worker,):
        def look():
            seen.add(one(connection, "select application_name from pg_stat_activity where pid = %s",
                         [worker.connection.info.backend_pid]))
            return any(" left" in name for name in seen)
        wait_for(look)
    name = next(name for name in seen if " left" in name)
    assert name.startswith("gte-small: docs ") and "/6000 " in name and "rows/s" in name and len(name.encode()) <= 63
    assert one(worker.connection, "show application_name") == ""


# --- kills ---


@pytest.mark.parametrize("call", ["call embed_backfill('docs')", "call embed_backfill('docs', force => true)"], ids=["missing", "force"])
def test_a_killed_backfill_goes_on_where_it_was(database, connection, call):
    make(connection, 5000)
    if "force" in call:
        connection.execute("update docs set embedding = array_fill(0.051031, array[384])::vector")
    right = "select count(*) from docs where embedding <> array_fill(0.051031, array[384])::vector"
    killed = 0
    for _ in range(4):
        worker = Worker(database, lambda c: backfill(c, call))
        worker.start()
        before = one(connection, right)
        wait_for(lambda: one(connection, right) > before or not worker.is_alive())
        connection.execute("select pg_terminate_backend(%s)", [worker.connection.info.backend_pid])
        try:
            worker.join()
        except psycopg.OperationalError as error:
            assert error.sqlstate == "57P01"
            killed += 1
    assert killed > 0
    connection.execute(call)
    assert missing(connection) == 0 and wrong(connection) == 0 and one(connection, "select count(*) from docs") == 5000
    assert note(connection).get("force") is None and note(connection)["fingerprint"] == fingerprint(connection)


@pytest.fixture
def crashing(server):
    """A cluster with fsync, for immediate stops."""
    described = json.loads(os.environ["GTE_TEST"])
    directory = pathlib.Path(described["directory"])
    cluster = postgres.Cluster(pathlib.Path(described["pg_config"]), directory.with_name(directory.name + "-crash"),
                               {"gte_small.model_path": str(server.tiny), "autovacuum": "off"})
    cluster.destroy()
    cluster.create()
    try:
        cluster.start()
        cluster.psql('create extension "gte-small" cascade')
        yield cluster
    finally:
        cluster.destroy()


@pytest.mark.parametrize("call", ["call embed_backfill('docs')", "call embed_backfill('docs', force => true)"], ids=["missing", "force"])
def test_a_crashed_server_loses_no_batch_that_was_committed(crashing, call):
    def connect():
        return psycopg.connect(crashing.dsn(dbname="postgres", user="postgres"), autocommit=True)

    with connect() as connection:
        make(connection, 5000)
        if "force" in call:
            connection.execute("update docs set embedding = array_fill(0.051031, array[384])::vector")
    right = "select count(*) from docs where embedding <> array_fill(0.051031, array[384])::vector"
    crashes, seen = 0, 0
    for _ in range(2):
        session, watcher, ended = connect(), connect(), []

        def work():
            try:
                session.execute(call)
                ended.append("done")
            except psycopg.OperationalError:
                ended.append("crashed")

        thread = threading.Thread(target=work)
        thread.start()
        before = one(watcher, right)
        wait_for(lambda: one(watcher, right) > before or ended)
        seen = one(watcher, right)
        crashing.stop("immediate")
        thread.join(60)
        crashes += ended == ["crashed"]
        session.close(), watcher.close()
        crashing.start()
        with connect() as connection:
            assert one(connection, right) >= seen, "a batch that others saw is there after the crash"
    assert crashes > 0 and seen < 5000
    with connect() as connection:
        connection.execute(call)
        assert missing(connection) == 0 and wrong(connection) == 0 and one(connection, "select count(*) from docs") == 5000
