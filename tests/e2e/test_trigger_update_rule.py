"""What an UPDATE stores: a changed text is embedded, whatever vector comes along; an unchanged one keeps its vector.

Programs that write whole rows write vectors that they read earlier, or NULL where they did not read them.
"""

import psycopg
import pytest

from measure import counting, one, unit_axis
from test_note import TABLE as NOTED
from test_trigger_places import FOR_EACH_ROW
from test_trigger_rule import TABLE, expected, runs, stored

FOREIGN = unit_axis(5)
OWN = "set gte_small.own_vectors = on"


@pytest.fixture
def notes(connection):
    connection.execute(TABLE)
    connection.execute("set gte_small.memo_size = 0; insert into notes (id, content) values (1, 'old text')")
    return connection


# --- whole rows ---


def test_a_row_saved_without_its_vector_keeps_it(notes):
    before = stored(notes)
    assert runs(notes, "update notes set content = 'old text', embedding = null, other = 3") == 0
    assert stored(notes) == before
    assert runs(notes, "update notes set embedding = null") == 0
    assert stored(notes) == before


def test_two_stale_objects_saved_in_turn(notes):
    """Both have read the first vector. The second one to be saved brings it beside a text that is not the first."""
    first = stored(notes)
    for text in ("the first writer's", "the second writer's"):
        notes.execute("update notes set content = %s, embedding = %s", [text, first])
        assert stored(notes) == expected(notes, text)


def test_a_changed_text_is_embedded_though_a_new_vector_comes(notes):
    assert runs(notes, "update notes set content = 'new text', embedding = %s", [FOREIGN]) == 1
    assert stored(notes) == expected(notes, "new text")


def test_a_new_vector_beside_the_same_text_is_stored(notes):
    assert runs(notes, "update notes set content = 'old text', embedding = %s", [FOREIGN]) == 0
    assert stored(notes) == FOREIGN


def test_null_for_a_row_that_has_no_vector_stays_null(notes):
    notes.execute("set gte_small.defer = on; insert into notes (id, content) values (2, 'waits'); set gte_small.defer = off")
    assert runs(notes, "update notes set embedding = null, other = 1 where id = 2") == 0
    assert stored(notes, 2) is None


def test_null_for_a_row_without_text_is_stored(notes):
    notes.execute("insert into notes values (2, null, %s), (3, ' ', %s)", [FOREIGN, FOREIGN])
    assert stored(notes, 2) == stored(notes, 3) == FOREIGN
    notes.execute("update notes set embedding = null where id > 1")
    assert stored(notes, 2) is None and stored(notes, 3) is None


def test_the_vector_that_belongs_to_the_new_text_costs_no_run(notes):
    """`excluded.embedding` of an upsert, and `set content = x, embedding = embed(x)`."""
    assert runs(notes, "update notes set content = 'new text', embedding = embed('new text')") == 1
    assert stored(notes) == expected(notes, "new text")
    assert runs(notes, "update notes set content = 'newer text', embedding = embed('another text')") == 2
    assert stored(notes) == expected(notes, "newer text")


# --- gte_small.own_vectors ---


@pytest.mark.parametrize("change, vector", [
    (f"content = 'new text', embedding = '{FOREIGN}'", FOREIGN),
    (f"embedding = '{FOREIGN}'", FOREIGN),
    ("embedding = null", None),
    ("embedding = null, content = content, other = 1", None),
], ids=["both", "the vector", "null", "null beside the same text"])
def test_a_load_that_means_its_vectors(notes, change, vector):
    notes.execute(OWN)
    assert runs(notes, f"update notes set {change}") == 0
    assert stored(notes) == vector


@pytest.mark.parametrize("change", ["content = 'new text'", "content = 'new text', embedding = embedding", "content = 'new text', embedding = null"])
def test_even_then_no_old_vector_stays_beside_a_new_text(notes, change):
    notes.execute(OWN)
    assert runs(notes, f"update notes set {change}") == 1
    assert stored(notes) == expected(notes, "new text")


def test_a_plain_role_may_set_it(database, notes):
    notes.execute("grant select, update on notes to gte_plain")
    plain = database.connect("gte_plain", options="-c gte_small.own_vectors=on")
    plain.execute("update notes set embedding = null")
    assert stored(plain) is None


def test_a_column_is_emptied_for_a_backfill(notes):
    notes.execute(OWN + "; update notes set embedding = null; reset gte_small.own_vectors")
    notes.execute("call embed_backfill('notes')")
    assert stored(notes) == expected(notes, "old text")


@pytest.mark.parametrize("own_vectors", ["off", "on"])
def test_a_trigger_that_changes_the_text_during_a_backfill(notes, own_vectors):
    """The backfill has read the text before the trigger changes it."""
    notes.execute("set gte_small.defer = on; insert into notes (id, content) values (2, 'waits'); reset gte_small.defer; "
                  "create function shout() returns trigger language plpgsql as 'begin new.content := new.content || $$!$$; return new; end'; "
                  "create trigger shout before update on notes for each row execute function shout()")
    notes.execute(f"set gte_small.own_vectors = {own_vectors}; select embed_backfill_step('notes')")
    assert one(notes, "select content from notes where id = 2") == "waits!"
    assert stored(notes, 2) == expected(notes, "waits!")


# --- what is compared ---


def pages(connection, statement):
    """The pages that a statement looks at."""
    plan = one(connection, f"explain (analyze, buffers, format json) {statement}")[0]
    return sum(plan["Plan"][key] for key in ("Shared Hit Blocks", "Shared Read Blocks"))


@pytest.mark.parametrize("storage", ["external", "extended"])
def test_an_update_of_another_column_does_not_read_the_text(connection, storage):
    """The new row has the pointer to the stored text that the old row has. The text has hundreds of pages."""
    connection.execute(TABLE)
    connection.execute(f"alter table notes alter content set storage {storage}")
    connection.execute("insert into notes (id, content) values (1, (select string_agg(md5(i::text), ' ') from generate_series(1, 100000) i))")
    before = stored(connection)
    pages(connection, "update notes set other = 0")
    assert pages(connection, "update notes set other = 1, embedding = null") < 100
    assert stored(connection) == before
    assert pages(connection, "update notes set content = 'x' || substr(content, 2)") > 200


@pytest.mark.parametrize("storage", ["plain", "main", "external", "extended"])
def test_a_change_is_seen_however_the_text_is_stored(connection, storage):
    connection.execute(TABLE)
    connection.execute(f"set gte_small.memo_size = 0; alter table notes alter content set storage {storage}")
    length = 1000 if storage == "plain" else 20000
    connection.execute("insert into notes (id, content) select 1, 'x' || repeat('a cat ', %s / 6)", [length])
    assert runs(connection, "update notes set content = content || ''") == 0
    assert runs(connection, "update notes set content = 'y' || substr(content, 2)") == 1
    assert runs(connection, "update notes set content = content || '.'") == 1
    assert stored(connection) == one(connection, "select embed(content)::text from notes")


def test_padding_and_names(connection):
    connection.execute(
        "create table notes (id int, code char(8), kind name, embedding vector(384)); create trigger zzz_gte_small_embedding "
        f"{FOR_EACH_ROW} embed_trigger('embedding', 'code', 'kind'); set gte_small.memo_size = 0; insert into notes values (1, 'ab', 'k')")
    assert stored(connection) == expected(connection, "ab\nk")
    assert runs(connection, "update notes set code = 'ab ', kind = 'k'") == 0
    assert runs(connection, "update notes set kind = 'l'") == 1
    assert stored(connection) == expected(connection, "ab\nl")


# --- columns that are called otherwise now ---


def mends(connection, error):
    """The hint is a statement; after it, writes work."""
    statement = error.value.diag.message_hint
    connection.execute(statement)
    return statement


@pytest.mark.parametrize("column", ["content", "embedding"])
def test_a_renamed_column(connection, column):
    connection.execute("create schema s; " + NOTED.format("s.notes"))
    connection.execute("comment on trigger zzz_gte_small_embedding on s.notes is 'gte-small {}'")
    connection.execute(f"insert into s.notes (content) values ('a cat'); alter table s.notes rename {column} to \"Renamed\"")
    with pytest.raises(psycopg.errors.UndefinedColumn) as error:
        connection.execute("update s.notes set id = 7")
    assert "zzz_gte_small_embedding" in error.value.diag.message_detail
    mends(connection, error)
    connection.execute("update s.notes set id = 7")
    assert one(connection, "select note ->> 'fingerprint' from embedding_columns('s.notes')") == one(connection, "select fingerprint from embed_model()")


def test_a_renamed_column_of_a_partition(connection):
    connection.execute(
        "create table parts (id int, title text, body text, embedding vector(384)) partition by range (id); create table low partition of parts "
        f"for values from (0) to (10); create trigger mine {FOR_EACH_ROW.replace('notes', 'parts')} embed_trigger('embedding', 'title', 'body'); "
        "alter table parts rename body to text")
    with pytest.raises(psycopg.errors.UndefinedColumn) as error:
        connection.execute("insert into low values (1, 'a', 'b')")
    assert "ON public.parts" in mends(connection, error)
    connection.execute("insert into low values (1, 'a', 'b')")
    assert stored(connection, 1, "parts") == expected(connection, "a\nb")


def test_a_dropped_column(connection):
    connection.execute(TABLE.replace("other int", "other text") + "; alter table notes drop column content")
    with pytest.raises(psycopg.errors.UndefinedColumn) as error:
        connection.execute("insert into notes (id) values (1)")
    hint = error.value.diag.message_hint
    assert 'called "other"' in hint and "DROP TRIGGER zzz_gte_small_embedding ON public.notes;" in hint
    connection.execute(hint.partition("If it was dropped: ")[2])
    connection.execute("insert into notes (id) values (1)")


def test_several_columns_that_it_may_be(connection):
    connection.execute("create table notes (id int, a text, b text, c text, embedding vector(384)); create trigger zzz_gte_small_embedding "
                       f"{FOR_EACH_ROW} embed_trigger()")
    with pytest.raises(psycopg.errors.UndefinedColumn) as error:
        connection.execute("insert into notes (id) values (1)")
    assert "embed_trigger('embedding', '...');" in error.value.diag.message_hint


def test_counters_of_a_whole_table(notes):
    """An ORM saves every row with NULL: not one run, not one vector lost."""
    notes.execute("insert into notes (id, content) select i, 'text ' || i from generate_series(2, 100) i")
    with counting(notes) as counted:
        notes.execute("update notes set content = content, embedding = null, other = 1")
    assert counted.texts == 0 and one(notes, "select count(*) from notes where embedding = embed(content)") == 100
