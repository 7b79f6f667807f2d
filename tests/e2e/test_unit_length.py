"""A vector that is not of unit length never gets in, and those that did are counted."""

import math

import psycopg
import pytest

from backfills import make
from measure import DIMS, one, unit_axis, vector
from test_status import status, verified
from test_trigger_rule import TABLE, copy, stored

UNIT = "gte_small.unit({}::vector)"


def literal(length, axis=3):
    return unit_axis(axis).replace("1", repr(length))


@pytest.fixture
def notes(connection):
    connection.execute(TABLE)
    return connection


# --- gte_small.unit ---


@pytest.mark.parametrize("length", [1e-37, 0.001, 0.99, 0.9985, 1.0015, 20, 3e38])
def test_other_lengths_are_scaled(connection, length):
    numbers = vector(connection, UNIT.format("array_fill(%s::real, array[384])"), [length / math.sqrt(DIMS)])
    assert math.fsum(x * x for x in numbers) == pytest.approx(1, abs=1e-6)
    assert max(numbers) - min(numbers) < 1e-9


@pytest.mark.parametrize("length", ["1", "0.9991", "1.0009"])
def test_unit_vectors_are_returned_as_they_are(connection, length):
    assert one(connection, "select gte_small.unit(%s::vector)::text", [literal(float(length))]) == one(connection, "select %s::vector::text", [literal(float(length))])
    assert one(connection, "select gte_small.is_unit(%s::vector)", [literal(float(length))])


def test_embeddings_are_unit_vectors(connection):
    assert one(connection, "select bool_and(gte_small.is_unit(embed(x)) and gte_small.unit(embed(x)) = embed(x)) from unnest(array['', 'a cat', repeat('x ', 2000)]) x")


def test_zero_and_other_dimensions(connection):
    for value, error in (("array_fill(0::real, array[384])::vector", "22023"), ("'[1,2]'::vector", "22000"), ("array_fill(1::real, array[385])::vector", "22000")):
        with pytest.raises(psycopg.Error) as raised:
            connection.execute(f"select gte_small.unit({value})")
        assert raised.value.sqlstate == error and raised.value.diag.message_hint
        assert one(connection, f"select gte_small.is_unit({value})") is False
    assert one(connection, "select gte_small.unit(null)") is None
    assert connection.execute("select provolatile, proisstrict, proparallel from pg_proc where oid = 'gte_small.unit(vector)'::regprocedure").fetchone() == ("i", True, "s")


# --- the trigger ---


def test_a_vector_that_comes_along_is_scaled(notes):
    notes.execute("insert into notes values (1, 'a', %s)", [literal(20.0)])
    copy(notes, "copy notes (id, content, embedding) from stdin", [f"2\tb\t{literal(0.5)}"])
    notes.execute("insert into notes (id, content) values (3, 'c')")
    notes.execute("update notes set embedding = %s where id = 3", [literal(7.0)])
    notes.execute("set gte_small.own_vectors = on; insert into notes (id, content) values (4, 'd')")
    notes.execute("update notes set content = 'e', embedding = %s where id = 4", [literal(7.0)])
    assert [stored(notes, n) for n in (1, 2, 3, 4)] == [unit_axis(3)] * 4


def test_zero_is_refused(notes):
    notes.execute("insert into notes (id, content) values (1, 'a')")
    for statement in ("insert into notes values (2, 'b', %s)", "update notes set embedding = %s"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="length 0"):
            notes.execute(statement, [literal(0.0)])
    # A vector that is not stored is not looked at.
    notes.execute("update notes set content = 'b', embedding = %s", [literal(0.0)])
    assert one(notes, "select embedding = embed('b') from notes")


def test_another_number_of_dimensions_is_refused(connection):
    connection.execute(TABLE.replace("vector(384)", "vector"))
    with pytest.raises(psycopg.errors.DataException, match="expected 384 dimensions, not 2"):
        connection.execute("insert into notes values (1, 'a', '[1,2]')")


def test_what_is_stored_already_stays(notes):
    """Only a vector that is new in the statement is scaled."""
    notes.execute("set session_replication_role = replica")
    notes.execute("insert into notes values (1, 'a', %s), (2, 'b', %s)", [literal(5.0), literal(0.0)])
    notes.execute("reset session_replication_role; update notes set other = 1")
    assert [stored(notes, n) for n in (1, 2)] == [literal(5.0).replace("5.0", "5"), literal(0.0).replace("0.0", "0")]


# --- what came in behind the trigger's back ---


@pytest.fixture
def docs(connection):
    make(connection, 40)
    connection.execute("call embed_backfill('docs')")
    connection.execute("alter table docs disable trigger user")
    connection.execute("update docs set embedding = (select array_agg(20 * x order by n) from unnest(embedding::real[]) with ordinality u (x, n))::vector where id <= 3")
    connection.execute("update docs set embedding = %s where id = 4", [literal(0.0)])
    connection.execute("alter table docs enable trigger user")
    return connection


def test_status_counts_it(docs):
    told = status(docs)
    assert told["state"] == "unknown"
    hint = next(hint for hint in told["hints"] if "unit length" in hint)
    assert hint.startswith("4 vectors")
    docs.execute(hint.partition(": ")[2])
    assert status(docs)["state"] == "current" and not any("unit" in hint for hint in status(docs)["hints"])


def test_verify_calls_it_wrong(docs):
    said = []
    docs.add_notice_handler(lambda notice: said.append(notice.message_primary))
    assert verified(docs)[1:4] == (40, 4, 0)
    assert any("4 of the wrong vectors" in message for message in said)


def test_no_threshold_of_nothing(docs):
    threshold = one(docs, "select suggest_threshold('docs')")
    assert threshold is not None and -1 <= threshold <= 1
