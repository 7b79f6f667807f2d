"""`gte_small.defer`: all cases of the trigger rule, with NULL instead of an embedding, and without a model."""

import psycopg
import pytest

from measure import counting, one, unit_axis
from test_trigger_places import FOR_EACH_ROW
from test_trigger_rule import TABLE, copy, expected, stored

OLD, FOREIGN = unit_axis(5), unit_axis(6)
NOWHERE = "/nonexistent/model"


@pytest.fixture
def deferred(database, connection):
    """A row with a vector in a table with the trigger. The model is missing, so that a run would be an error."""
    connection.execute(TABLE)
    connection.execute("insert into notes values (1, 'old text', %s)", [OLD])
    database.configure("gte_small.model_path", NOWHERE)
    connection = database.connect()
    connection.execute("set gte_small.defer = on")
    yield connection
    assert one(connection, "select calls from embed_stats()") == 0


# --- INSERT ---


@pytest.mark.parametrize("row", ["(2, 'a cat')", "(2, 'a cat', null)", "(2, '')", "(2, null)"])
def test_insert_leaves_null(deferred, row):
    deferred.execute(f"insert into notes values {row}")
    assert stored(deferred, 2) is None


def test_insert_keeps_a_vector_that_comes_along(deferred):
    deferred.execute("insert into notes values (2, 'a cat', %s)", [FOREIGN])
    assert stored(deferred, 2) == FOREIGN


# --- UPDATE ---


@pytest.mark.parametrize("change", [
    "content = 'new text'",
    f"content = 'new text', embedding = '{OLD}'",
    "content = 'new text', embedding = null",
    "content = null",
    f"content = null, embedding = '{OLD}'",
    "content = 'OLD TEXT'",
    f"content = 'new text', embedding = '{FOREIGN}'",
], ids=["text", "old vector beside", "null beside", "no text", "old vector beside no text", "letter case", "new vector beside"])
def test_update_never_leaves_the_old_vector_beside_new_text(deferred, change):
    deferred.execute(f"update notes set {change}")
    assert stored(deferred) is None


@pytest.mark.parametrize("change, vector", [
    (f"embedding = '{FOREIGN}'", FOREIGN),
    ("other = 1", OLD),
    ("embedding = null", OLD),
    ("content = 'old text', other = 2", OLD),
], ids=["vector alone", "another column", "vector to null", "the same text"])
def test_update_keeps_what_belongs_to_the_text(deferred, change, vector):
    deferred.execute(f"update notes set {change}")
    assert stored(deferred) == vector


def test_update_of_a_row_that_waits(deferred):
    deferred.execute("insert into notes values (2, 'a cat'); update notes set content = 'a dog', other = 1 where id = 2")
    assert stored(deferred, 2) is None
    deferred.execute("update notes set content = 'a bird', embedding = %s where id = 2", [FOREIGN])
    assert stored(deferred, 2) is None
    deferred.execute("set gte_small.own_vectors = on")
    deferred.execute("update notes set content = 'a bee', embedding = %s where id = 2", [FOREIGN])
    assert stored(deferred, 2) == FOREIGN


# --- upserts, COPY ---


@pytest.mark.parametrize("assignment", ["content = excluded.content", "content = excluded.content, embedding = excluded.embedding"])
def test_on_conflict_do_update(deferred, assignment):
    deferred.execute(
        f"insert into notes (id, content) values (1, 'new text'), (2, 'a cat') on conflict (id) do update set {assignment}"
    )
    assert (stored(deferred, 1), stored(deferred, 2)) == (None, None)


def test_on_conflict_with_unchanged_text_keeps_the_vector(deferred):
    deferred.execute("insert into notes (id, content) values (1, 'old text') on conflict (id) do update set content = excluded.content")
    assert stored(deferred) == OLD
    deferred.execute("insert into notes (id, content) values (1, 'new text') on conflict do nothing")
    assert stored(deferred) == OLD


def test_merge(deferred):
    deferred.execute(
        "merge into notes n using (values (1, 'new text'), (2, 'a cat')) as s(id, content) on n.id = s.id "
        "when matched then update set content = s.content when not matched then insert (id, content) values (s.id, s.content)"
    )
    assert (stored(deferred, 1), stored(deferred, 2)) == (None, None)


def test_copy(deferred):
    copy(deferred, "copy notes (id, content, embedding) from stdin", ["2\ta cat\t\\N", f"3\ta dog\t{FOREIGN}", "4\t\\N\t\\N"])
    assert [stored(deferred, identifier) for identifier in (2, 3, 4)] == [None, FOREIGN, None]


# --- several sources, partitions ---


def test_several_sources(deferred):
    deferred.execute(
        "create table pages (id int, title text, body text, embedding vector(384)); create trigger zzz_gte_small_embedding "
        "before insert or update on pages for each row execute function embed_trigger('embedding', 'title', 'body')"
    )
    deferred.execute("insert into pages values (1, 'a', null, %s), (2, null, null, null), (3, 'a', 'b', null)", [OLD])
    assert [stored(deferred, identifier, "pages") for identifier in (1, 2, 3)] == [OLD, None, None]
    deferred.execute("update pages set title = null where id = 1")
    assert stored(deferred, 1, "pages") is None


def test_partitions(deferred):
    deferred.execute(
        "create table parts (id int, content text, embedding vector(384)) partition by range (id); "
        "create table low partition of parts for values from (0) to (10); "
        "create table high (embedding vector(384), junk int, id int, content text); alter table high drop column junk; "
        "alter table parts attach partition high for values from (10) to (20); "
        f"create trigger zzz_gte_small_embedding {FOR_EACH_ROW.replace('notes', 'parts')} embed_trigger()"
    )
    deferred.execute("insert into parts values (1, 'a cat', null), (2, 'a dog', %(v)s), (3, 'a bird', %(v)s)", {"v": OLD})
    deferred.execute("insert into high (id, content) values (11, 'a fish')")
    deferred.execute("update parts set id = id + 10 where id = 2; update parts set id = 13, content = 'a bee' where id = 3")
    assert [stored(deferred, identifier, "parts") for identifier in (1, 11, 12, 13)] == [None, None, OLD, None]


# --- the setting ---


def test_text_that_is_too_long_is_not_read(deferred):
    deferred.execute("set gte_small.on_truncate = error")
    deferred.execute("insert into notes values (2, repeat('a b c d e f ', 1000))")
    assert stored(deferred, 2) is None


def test_a_wrong_trigger_is_refused_all_the_same(deferred):
    """Otherwise the mistake would appear only at the backfill."""
    deferred.execute(
        "create table wrong (id int, content text, embedding vector(12)); create trigger zzz_gte_small_embedding "
        f"{FOR_EACH_ROW.replace('notes', 'wrong')} embed_trigger()"
    )
    with pytest.raises(psycopg.errors.DatatypeMismatch):
        deferred.execute("insert into wrong values (1, 'a cat')")


def test_off_it_embeds_again(connection):
    connection.execute(TABLE)
    connection.execute("set gte_small.defer = on; insert into notes values (1, 'a cat'), (2, 'a dog'); set gte_small.defer = off")
    with counting(connection) as counted:
        connection.execute("update notes set other = 1")
    assert counted.calls == 0 and stored(connection) is None
    connection.execute("update notes set content = 'a lion' where id = 1")
    assert stored(connection) == expected(connection, "a lion")


def test_a_plain_role_defers_before_the_library_is_loaded(database, connection):
    """A SET creates a placeholder then, which becomes the setting."""
    connection.execute(TABLE + "; grant select, insert on notes to gte_plain")
    plain = database.connect("gte_plain", options="-c gte_small.defer=on")
    plain.execute("insert into notes values (1, 'a cat')")
    assert stored(plain) is None
