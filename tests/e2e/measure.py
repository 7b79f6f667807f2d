"""Measurements for the tests: model runs, vectors as floats, a backend's memory and processor time, running statements."""

import contextlib
import math
import os
import pathlib
import time

import pytest
from psycopg import pq

DIMS = 384


class Counted:
    """The changes of the backend's counters inside a `counting` block."""

    calls = memo_hits = model_runs = texts = tokens = truncated_texts = None


def counters(connection):
    return connection.execute(
        "select calls, memo_hits, model_runs, texts, tokens, truncated_texts from embed_stats()"
    ).fetchone()


@contextlib.contextmanager
def counting(connection):
    counted = Counted()
    before = counters(connection)
    yield counted
    after = counters(connection)
    moved = [b - a for a, b in zip(before, after)]
    (counted.calls, counted.memo_hits, counted.model_runs, counted.texts, counted.tokens, counted.truncated_texts) = moved


# Debian's pgvector is 0.8.0, which the status warns of. test_status_hints.py has the tests of that hint.
SOUND_PGVECTOR = "update pg_extension set extversion = '0.8.4' where extname = 'vector' and extversion ~ '^0[.]8[.][0-3]$'"


def one(connection, statement, parameters=None):
    """The single value of a statement's single row."""
    row = connection.execute(statement, parameters).fetchone()
    assert row is not None and len(row) == 1
    return row[0]


def vector(connection, expression, parameters=None):
    """A vector expression's floats, transferred in binary, so that no digit is lost."""
    with connection.cursor(binary=True) as cursor:
        value = cursor.execute(f"select ({expression})::real[]", parameters).fetchone()[0]
    assert value is None or len(value) == DIMS
    return value


def embedding(connection, text):
    return vector(connection, "embed(%s::text)", [text])


def cosine(left, right):
    dot = math.fsum(a * b for a, b in zip(left, right))
    return dot / math.sqrt(math.fsum(a * a for a in left) * math.fsum(b * b for b in right))


def max_abs(left, right):
    assert len(left) == len(right)
    return max(abs(a - b) for a, b in zip(left, right))


def unit_axis(axis):
    """A vector literal: 1 in one dimension, 0 in the others."""
    return "[" + ",".join("1" if place == axis else "0" for place in range(DIMS)) + "]"


def processor_seconds(pid):
    """User and system time of a process. Unlike the clock, it does not depend on other processes."""
    fields = proc_file(pid, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_kb(pid, field):
    for line in proc_file(pid, "status").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise AssertionError(f"no {field} in the process's status")


def proc_file(pid, name):
    path = pathlib.Path("/proc") / str(pid) / name
    if not path.exists():
        pytest.skip("needs /proc to watch the backend")
    return path.read_text()


# --- running statements ---


def begin(connection, statement):
    """Sends a statement and waits until it has used 0.1 s of processor time: then it embeds."""
    pid = connection.info.backend_pid
    before = processor_seconds(pid)
    connection.pgconn.send_query(statement.encode())
    connection.pgconn.flush()
    wait_until(lambda: processor_seconds(pid) - before > 0.1)


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within a minute"
        time.sleep(0.005)


def wait_until_active(watcher, pid):
    wait_until(lambda: one(watcher, "select state from pg_stat_activity where pid = %s", [pid]) == "active")


def sqlstate(connection):
    """Waits for the end of the statement that was begun; returns the code of its first error, or None."""
    errors = []
    while (result := connection.pgconn.get_result()) is not None:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            state = result.error_field(pq.DiagnosticField.SQLSTATE)
            # libpq's own error "server closed the connection" has no code.
            errors.append(state.decode() if state else "gone")
    return errors[0] if errors else None
