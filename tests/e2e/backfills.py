"""Helpers of the backfill tests: tables to fill, and checks of their rows."""

import contextlib
import time

import psycopg

from measure import one


def make(connection, rows, definition="id int primary key, content text", insert="select i, 'text ' || i from generate_series(1, {}) i"):
    """`docs` with rows that have no embedding, and then the trigger."""
    connection.execute(f"create table docs ({definition}, embedding vector(384))")
    connection.execute("insert into docs " + insert.format(rows))
    connection.execute("select enable_semantic_search('docs', with_index => false)")


def wrong(connection, table="docs", text="content", embedding="embedding"):
    """Rows whose vector differs in any bit from the vector of their text."""
    return one(connection, f"select count(*) from {table} where {embedding} is distinct from embed({text})")


def missing(connection, table="docs"):
    return one(connection, f"select count(*) from {table} where embedding is null")


def note(connection, table="docs", embedding="embedding"):
    return one(connection, "select note from embedding_columns(%s) where embedding = %s", [table, embedding])


def fingerprint(connection):
    return one(connection, "select fingerprint from embed_model()")


@contextlib.contextmanager
def notices(connection):
    heard = []

    def listen(diagnostic):
        heard.append((diagnostic.severity_nonlocalized, diagnostic.message_primary))

    connection.add_notice_handler(listen)
    try:
        yield heard
    finally:
        connection.remove_notice_handler(listen)


def wait_for(condition, seconds=60):
    """Waits until it is true. The time limit ends a test that would otherwise hang."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "what was waited for did not happen"
        time.sleep(0.002)


def refused(connection, statement, sqlstate):
    """The error's parts; every error of the extension has all of them."""
    try:
        connection.execute(statement)
    except psycopg.Error as error:
        assert error.sqlstate == sqlstate, str(error)
        assert error.diag.message_detail and error.diag.message_hint
        return error.diag
    raise AssertionError("it was not refused")
