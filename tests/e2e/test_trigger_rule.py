"""All cases of the trigger rule: the vector after INSERT and UPDATE, and the number of model runs.

A vector is compared as text: two equal texts are the same 384 floats.
"""

import psycopg
import pytest

from measure import counting, one, unit_axis

TABLE = (
    "create table notes (id int primary key, content text, embedding vector(384), other int); "
    "create trigger zzz_gte_small_embedding before insert or update on notes for each row "
    "execute function embed_trigger()"
)
FOREIGN = unit_axis(5)


@pytest.fixture
def notes(connection):
    """A table with the trigger's default columns; the memo is off, so every model run is counted."""
    connection.execute(TABLE)
    connection.execute("set gte_small.memo_size = 0; set max_parallel_workers_per_gather = 0")
    return connection


def stored(connection, identifier=1, table="notes"):
    return one(connection, f"select embedding::text from {table} where id = %s", [identifier])


def expected(connection, text):
    return one(connection, "select embed(%s::text)::text", [text])


def runs(connection, statement, parameters=None):
    with counting(connection) as counted:
        connection.execute(statement, parameters)
    return counted.texts


def insert_one(connection, content="old text"):
    connection.execute("insert into notes (id, content) values (1, %s)", [content])


# --- INSERT ---


def test_insert_embeds(notes):
    assert runs(notes, "insert into notes (id, content) values (1, 'a cat')") == 1
    assert stored(notes) == expected(notes, "a cat")


def test_insert_keeps_a_vector_that_comes_along(notes):
    assert runs(notes, "insert into notes values (1, 'a cat', %s)", [FOREIGN]) == 0
    assert stored(notes) == FOREIGN


def test_insert_with_explicit_null_embeds(notes):
    assert runs(notes, "insert into notes values (1, 'a cat', null)") == 1
    assert stored(notes) == expected(notes, "a cat")


def test_insert_of_null_content_stays_null(notes):
    assert runs(notes, "insert into notes (id) values (1)") == 0
    assert stored(notes) is None


def test_insert_of_many_rows(notes):
    assert runs(notes, "insert into notes (id, content) select i, 'row ' || i from generate_series(1, 20) i") == 20
    assert stored(notes, 20) == expected(notes, "row 20")


# --- UPDATE ---


def test_update_of_the_text_embeds(notes):
    insert_one(notes)
    assert runs(notes, "update notes set content = 'new text'") == 1
    assert stored(notes) == expected(notes, "new text")


def test_update_with_the_old_vector_beside_new_text_embeds(notes):
    """An ORM that saves the whole row writes the vector that it read."""
    insert_one(notes)
    old = stored(notes)
    assert runs(notes, "update notes set content = 'new text', embedding = %s", [old]) == 1
    assert stored(notes) == expected(notes, "new text") != old


def test_update_with_null_beside_new_text_embeds(notes):
    insert_one(notes)
    assert runs(notes, "update notes set content = 'new text', embedding = null") == 1
    assert stored(notes) == expected(notes, "new text")


def test_update_of_the_vector_alone_is_kept(notes):
    insert_one(notes)
    assert runs(notes, "update notes set embedding = %s", [FOREIGN]) == 0
    assert stored(notes) == FOREIGN


def test_update_of_another_column_runs_nothing(notes):
    insert_one(notes)
    old = stored(notes)
    assert runs(notes, "update notes set other = 1") == 0
    assert runs(notes, "update notes set content = 'old text'") == 0
    assert stored(notes) == old


def test_update_of_another_column_leaves_a_foreign_vector(notes):
    notes.execute("insert into notes values (1, 'a cat', %s)", [FOREIGN])
    assert runs(notes, "update notes set other = 1, content = 'a cat'") == 0
    assert stored(notes) == FOREIGN


def test_update_of_a_row_without_vector(notes):
    """The vector is NULL: a new text is embedded, a change of another column is not."""
    notes.execute("set gte_small.defer = on")
    insert_one(notes)
    notes.execute("set gte_small.defer = off")
    assert runs(notes, "update notes set other = 2") == 0
    assert stored(notes) is None
    assert runs(notes, "update notes set content = 'new text'") == 1
    assert stored(notes) == expected(notes, "new text")


def test_update_of_the_text_to_null_takes_the_vector_away(notes):
    insert_one(notes)
    assert runs(notes, "update notes set content = null") == 0
    assert stored(notes) is None


def test_update_of_the_text_from_null_embeds(notes):
    notes.execute("insert into notes (id) values (1)")
    assert runs(notes, "update notes set content = 'now'") == 1
    assert stored(notes) == expected(notes, "now")


def test_update_of_letter_case_embeds(notes):
    """A different text is embedded, even if the model may not see the difference."""
    insert_one(notes, "a cat")
    assert runs(notes, "update notes set content = 'A CAT'") == 1


def test_a_nondeterministic_collation_does_not_hide_a_change(connection):
    """The comparison is by bytes: under this collation 'CAT' = 'cat', but the texts differ."""
    try:
        connection.execute(
            "create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        )
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this PostgreSQL was built without ICU")
    connection.execute(
        "create table notes (id int, content text collate nocase, embedding vector(384)); "
        "create trigger zzz_gte_small_embedding before insert or update on notes for each row "
        "execute function embed_trigger(); set gte_small.memo_size = 0; insert into notes values (1, 'cat')"
    )
    assert runs(connection, "update notes set content = 'CAT'") == 1


# --- upserts ---


def test_on_conflict_do_nothing_costs_at_most_one_run_a_row(notes):
    insert_one(notes)
    assert runs(notes, "insert into notes values (1, 'x'), (2, 'y') on conflict do nothing") <= 2
    assert stored(notes) == expected(notes, "old text")


@pytest.mark.parametrize("assignment", ["content = excluded.content", "content = excluded.content, embedding = excluded.embedding"])
def test_on_conflict_do_update_costs_one_run_a_row_with_the_memo(notes, assignment):
    """BEFORE INSERT runs before the conflict check and embeds. With the memo the UPDATE after it costs no run."""
    notes.execute("set gte_small.memo_size = 128")
    notes.execute("insert into notes (id, content) select i, 'row ' || i from generate_series(1, 5) i")
    statement = (
        "insert into notes (id, content) select i, 'changed ' || i from generate_series(1, 7) i "
        f"on conflict (id) do update set {assignment}"
    )
    assert runs(notes, statement) == 7
    assert stored(notes, 3) == expected(notes, "changed 3")
    assert stored(notes, 7) == expected(notes, "changed 7")


def test_on_conflict_with_excluded_embedding_needs_no_memo(notes):
    insert_one(notes)
    statement = (
        "insert into notes (id, content) values (1, 'new text') "
        "on conflict (id) do update set content = excluded.content, embedding = excluded.embedding"
    )
    assert runs(notes, statement) == 1
    assert stored(notes) == expected(notes, "new text")


def test_merge_runs_nothing_for_unchanged_rows(notes):
    notes.execute("insert into notes (id, content) select i, 'row ' || i from generate_series(1, 5) i")
    merge = (
        "merge into notes n using (values (1, 'row 1'), (2, 'changed'), (9, 'new')) as s(id, content) on n.id = s.id "
        "when matched and n.content is distinct from s.content then update set content = s.content "
        "when not matched then insert (id, content) values (s.id, s.content)"
    )
    assert runs(notes, merge) == 2
    assert stored(notes, 2) == expected(notes, "changed")
    assert stored(notes, 9) == expected(notes, "new")
    assert runs(notes, merge) == 0


# --- COPY ---


def copy(connection, statement, lines):
    with connection.cursor() as cursor, cursor.copy(statement) as pipe:
        pipe.write("".join(line + "\n" for line in lines))


def test_copy_embeds(notes):
    with counting(notes) as counted:
        copy(notes, "copy notes (id, content) from stdin", ["1\ta cat", "2\t\\N", "3\ta dog"])
    assert counted.texts == 2
    assert stored(notes, 3) == expected(notes, "a dog")
    assert stored(notes, 2) is None


def test_copy_with_vectors_runs_nothing(notes):
    with counting(notes) as counted:
        copy(notes, "copy notes (id, content, embedding) from stdin", [f"1\ta cat\t{FOREIGN}"])
    assert counted.texts == 0
    assert stored(notes) == FOREIGN


# --- other triggers ---


def test_a_user_trigger_that_rewrites_the_text_comes_first(notes):
    notes.execute(
        "create function shout() returns trigger language plpgsql as $$ begin "
        "new.content := new.content || ' !'; return new; end $$; "
        "create trigger tidy before insert or update on notes for each row execute function shout()"
    )
    assert runs(notes, "insert into notes values (1, 'a cat')") == 1
    assert stored(notes) == expected(notes, "a cat !")
    # SET does not name the column: a trigger with a column list would miss this change.
    assert runs(notes, "update notes set other = 1") == 1
    assert stored(notes) == expected(notes, "a cat ! !")


def test_a_user_trigger_that_sets_the_vector_wins(notes):
    notes.execute(
        f"create function fixed() returns trigger language plpgsql as $$ begin new.embedding := '{FOREIGN}'; "
        "return new; end $$; create trigger fix before insert on notes for each row execute function fixed()"
    )
    assert runs(notes, "insert into notes values (1, 'a cat')") == 0
    assert stored(notes) == FOREIGN


def test_a_dropped_row_costs_nothing(notes):
    notes.execute(
        "create function drop_row() returns trigger language plpgsql as $$ begin return null; end $$; "
        "create trigger first before insert on notes for each row execute function drop_row()"
    )
    assert runs(notes, "insert into notes values (1, 'a cat')") == 0


def test_replicas_do_not_embed(notes):
    """A subscriber of logical replication gets the vectors as data. Its trigger does not fire unless enabled for replicas."""
    notes.execute("set session_replication_role = replica")
    assert runs(notes, "insert into notes values (1, 'a cat'), (2, 'a dog')") == 0
    assert stored(notes) is None
    notes.execute("alter table notes enable always trigger zzz_gte_small_embedding")
    assert runs(notes, "insert into notes values (3, 'a bird')") == 1


# --- several sources, and names ---


@pytest.fixture
def sources(connection):
    connection.execute(
        "create table notes (id int, title text, body text, footer text, embedding vector(384)); "
        "create trigger zzz_gte_small_embedding before insert or update on notes for each row "
        "execute function embed_trigger('embedding', 'title', 'body', 'footer'); set gte_small.memo_size = 0"
    )
    return connection


def test_several_sources_are_joined_by_a_newline(sources):
    assert runs(sources, "insert into notes values (1, 'a', 'b', 'c')") == 1
    assert stored(sources) == expected(sources, "a\nb\nc")


def test_null_sources_are_skipped(sources):
    sources.execute("insert into notes values (1, 'a', null, 'c'), (2, null, 'b', null)")
    assert stored(sources, 1) == expected(sources, "a\nc")
    assert stored(sources, 2) == expected(sources, "b")


def test_all_sources_null_is_null(sources):
    assert runs(sources, "insert into notes (id) values (1)") == 0
    assert stored(sources) is None
    sources.execute("update notes set title = 'a', body = 'b'")
    assert runs(sources, "update notes set title = null") == 1
    assert stored(sources) == expected(sources, "b")
    assert runs(sources, "update notes set body = null") == 0
    assert stored(sources) is None


def test_any_source_that_changes_embeds(sources):
    sources.execute("insert into notes values (1, 'a', 'b', null)")
    assert runs(sources, "update notes set footer = 'c'") == 1
    assert stored(sources) == expected(sources, "a\nb\nc")


def test_mixed_case_names(connection):
    connection.execute(
        'create schema "My Schema"; create table "My Schema"."My Notes" (id int, "The Text" text, '
        '"The Vector" vector(384)); create trigger "zzz_gte_small_The Vector" before insert or update '
        'on "My Schema"."My Notes" for each row execute function embed_trigger(\'The Vector\', \'The Text\'); '
        "insert into \"My Schema\".\"My Notes\" values (1, 'a cat')"
    )
    value = one(connection, 'select "The Vector"::text from "My Schema"."My Notes"')
    assert value == expected(connection, "a cat")


def test_names_are_not_folded(connection):
    connection.execute(
        'create table notes (id int, content text, "Content" text, embedding vector(384)); '
        "create trigger zzz_gte_small_embedding before insert or update on notes for each row "
        "execute function embed_trigger('embedding', 'Content'); insert into notes values (1, 'wrong', 'right')"
    )
    assert stored(connection) == expected(connection, "right")


def test_empty_search_path(notes):
    notes.execute("set search_path = ''")
    assert one(notes, "select public.vector_dims(public.embed('a cat'))") == 384
    notes.execute("insert into public.notes values (1, 'a cat'); update public.notes set content = 'a dog'")
    value = one(notes, "select embedding::text from public.notes")
    assert value == one(notes, "select public.embed('a dog')::text")


def test_two_columns_of_one_table(connection):
    connection.execute(
        "create table notes (id int, title text, body text, embedding vector(384), title_embedding vector(384)); "
        "create trigger zzz_gte_small_embedding before insert or update on notes for each row "
        "execute function embed_trigger('embedding', 'body'); "
        "create trigger zzz_gte_small_title_embedding before insert or update on notes for each row "
        "execute function embed_trigger('title_embedding', 'title'); insert into notes values (1, 'a', 'b')"
    )
    assert stored(connection) == expected(connection, "b")
    assert one(connection, "select title_embedding::text from notes") == expected(connection, "a")
