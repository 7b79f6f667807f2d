"""Tables and columns for the trigger: kinds of sources, partitions, generated columns, and what is refused."""

import psycopg
import pytest

from measure import counting, one
from test_trigger_rule import expected, runs, stored

FOR_EACH_ROW = "before insert or update on notes for each row execute function"


def table(connection, columns, call="embed_trigger()", trigger=FOR_EACH_ROW):
    connection.execute(f"create table notes ({columns}); create trigger zzz_gte_small_embedding {trigger} {call}")


def refused(connection, sqlstate, statement="insert into notes (id, content) values (1, 'a cat')"):
    """The statement fails with the SQLSTATE, without a model run and a backtrace; the message is a fact in lower case."""
    with counting(connection) as counted:
        with pytest.raises(psycopg.Error) as error:
            connection.execute(statement)
    assert error.value.sqlstate == sqlstate, error.value
    message = error.value.diag.message_primary
    assert message[0].islower() or message.startswith(('"', "embed")), message
    assert "panic" not in message.lower()
    assert counted.model_runs == 0
    return error.value.diag


# --- kinds of sources ---


@pytest.mark.parametrize("kind", ["varchar", "varchar(20)", "char(20)", "name", "title"])
def test_sources_that_are_like_text(connection, kind):
    connection.execute("create domain title as varchar(40) check (value <> 'forbidden')")
    table(connection, f"id int, content {kind}, embedding vector(384)")
    connection.execute("insert into notes values (1, 'a cat'); update notes set content = 'a dog'")
    assert stored(connection) == expected(connection, "a dog")


def test_char_n_is_embedded_without_its_padding(connection):
    connection.execute("set gte_small.memo_size = 0")
    table(connection, "id int, content char(200), embedding vector(384)")
    with counting(connection) as padded:
        connection.execute("insert into notes values (1, 'a')")
    with counting(connection) as plain:
        connection.execute("select embed('a')")
    assert padded.tokens == plain.tokens
    assert stored(connection) == expected(connection, "a")


def test_domain_over_domain(connection):
    connection.execute("create domain inner_text as text; create domain outer_text as inner_text not null")
    table(connection, "id int, content outer_text, embedding vector(384)")
    connection.execute("insert into notes values (1, 'a cat')")
    assert stored(connection) == expected(connection, "a cat")


def test_toasted_text(connection):
    """A long text is compressed or out of line, also as OLD in an update of another column."""
    table(connection, "id int, content text, embedding vector(384), other int")
    connection.execute("alter table notes alter content set storage external; set gte_small.memo_size = 0")
    connection.execute("insert into notes values (1, repeat('a long story ', 5000))")
    assert stored(connection) == expected(connection, "a long story " * 5000)
    assert runs(connection, "update notes set other = 1") == 0
    assert runs(connection, "update notes set content = content || 'end'") == 1


def test_a_vector_without_typmod_is_a_target(connection):
    table(connection, "id int, content text, embedding vector")
    connection.execute("insert into notes values (1, 'a cat')")
    assert stored(connection) == expected(connection, "a cat")


@pytest.mark.parametrize("kind", ["int", "json", "jsonb", "bytea", "text[]"])
def test_sources_that_are_not_text(connection, kind):
    table(connection, f"id int, content {kind}, embedding vector(384)")
    diagnosis = refused(connection, "42804", "insert into notes (id) values (1)")
    assert "content" in diagnosis.message_primary


# --- targets ---


@pytest.mark.parametrize("kind", ["vector(12)", "vector(383)", "vector(385)", "halfvec(384)", "sparsevec(384)", "text", "real[]", "meaning"])
def test_targets_that_cannot_hold_the_vector(connection, kind):
    """PostgreSQL does not coerce a BEFORE trigger's tuple to the typmod: it would store 384 floats in vector(12)."""
    connection.execute("create domain meaning as vector(384)")
    table(connection, f"id int, content text, embedding {kind}")
    diagnosis = refused(connection, "42804")
    assert "embedding" in diagnosis.message_primary
    assert one(connection, "select count(*) from notes") == 0


def test_a_wrong_target_is_refused_even_where_nothing_would_be_embedded(connection):
    table(connection, "id int, content text, embedding vector(12)")
    refused(connection, "42804", "insert into notes (id) values (1)")


@pytest.mark.parametrize("call", ["embed_trigger('missing', 'content')", "embed_trigger('embedding', 'missing')",
                                  "embed_trigger('embedding', 'content', 'missing')", "embed_trigger('Embedding', 'content')",
                                  "embed_trigger('embedding', 'ctid')"])
def test_missing_columns(connection, call):
    table(connection, "id int, content text, embedding vector(384)", call)
    diagnosis = refused(connection, "42703")
    assert any(name in diagnosis.message_primary for name in ("missing", "Embedding", "ctid"))


@pytest.mark.parametrize("letters", [64, 10_000_000])
def test_an_argument_that_is_no_name_is_not_repeated(connection, letters):
    table(connection, "id int, content text, embedding vector(384)", f"embed_trigger('embedding', '{'x' * letters}')")
    diagnosis = refused(connection, "42622")
    assert "xxx" not in f"{diagnosis.message_primary} {diagnosis.message_detail} {diagnosis.message_hint}"


def test_a_dropped_column_is_missing(connection):
    table(connection, "id int, content text, embedding vector(384)")
    connection.execute("alter table notes drop column content; alter table notes add body text")
    refused(connection, "42703", "insert into notes (id, body) values (1, 'a cat')")


def test_columns_are_found_where_they_are_now(connection):
    """Attribute numbers change when columns are dropped and added again; the names stay."""
    table(connection, "id int, content text, embedding vector(384)")
    connection.execute("insert into notes values (1, 'before')")
    connection.execute("alter table notes drop column embedding; alter table notes add column x int, add column embedding vector(384)")
    connection.execute("alter table notes drop column content; alter table notes add column content text")
    connection.execute("insert into notes (id, content) values (2, 'a cat')")
    assert stored(connection, 2) == expected(connection, "a cat")


def test_one_argument_is_too_few(connection):
    table(connection, "id int, content text, embedding vector(384)", "embed_trigger('embedding')")
    refused(connection, "22023")


def test_generated_source(connection):
    """It is NULL in a BEFORE trigger, so the vector would be missing without an error."""
    table(connection, "id int, base text, content text generated always as (base || '!') stored, embedding vector(384)")
    refused(connection, "428C9", "insert into notes (id, base) values (1, 'a cat')")


def test_virtual_generated_source(connection):
    if connection.info.server_version < 180000:
        pytest.skip("virtual generated columns came with PostgreSQL 18")
    table(connection, "id int, base text, content text generated always as (base || '!') virtual, embedding vector(384)")
    refused(connection, "428C9", "insert into notes (id, base) values (1, 'a cat')")


def test_generated_target(connection):
    table(connection, "id int, content text, embedding vector(384) generated always as (embed(content)) stored")
    refused(connection, "428C9")


def test_identity_target(connection):
    table(connection, "id int, content text, embedding int generated always as identity")
    refused(connection, "428C9")


# --- kinds of triggers ---


@pytest.mark.parametrize("kind, statement", [
    ("after insert on notes for each row", "insert into notes (id, content) values (1, 'a cat')"),
    ("after update on notes for each row", "update notes set content = 'a dog'"),
    ("before insert on notes for each statement", "insert into notes (id, content) values (1, 'a cat')"),
    ("after insert on notes for each statement", "insert into notes (id, content) values (1, 'a cat')"),
    ("before delete on notes for each row", "delete from notes"),
    ("after delete on notes for each row", "delete from notes"),
    ("before truncate on notes for each statement", "truncate notes"),
])
def test_the_wrong_kind_of_trigger(connection, kind, statement):
    connection.execute("create table notes (id int, content text, embedding vector(384)); insert into notes values (0, 'there')")
    connection.execute(f"create trigger t {kind} execute function embed_trigger()")
    refused(connection, "39P01", statement)
    assert connection.execute("select id, content, embedding from notes").fetchall() == [(0, "there", None)]


def test_instead_of_on_a_view(connection):
    connection.execute(
        "create table base (id int, content text, embedding vector(384)); create view notes as select * from base; "
        "create trigger t instead of insert on notes for each row execute function embed_trigger()"
    )
    refused(connection, "39P01")


def test_called_as_a_function(connection):
    with pytest.raises(psycopg.Error) as error:
        connection.execute("select embed_trigger()")
    assert error.value.sqlstate == "39P01", error.value


# --- generated columns ---


def test_stored_generated_column(connection):
    connection.execute(
        "create table notes (id int, content text, embedding vector(384) generated always as (embed(content)) stored)"
    )
    connection.execute("insert into notes (id, content) values (1, 'a cat'), (2, null)")
    assert stored(connection) == expected(connection, "a cat")
    assert stored(connection, 2) is None
    connection.execute("update notes set content = 'a dog' where id = 1")
    assert stored(connection) == expected(connection, "a dog")


def test_virtual_generated_column_is_refused_by_postgres(connection):
    if connection.info.server_version < 180000:
        pytest.skip("virtual generated columns came with PostgreSQL 18")
    with pytest.raises(psycopg.Error) as error:
        connection.execute("create table notes (content text, embedding vector(384) generated always as (embed(content)) virtual)")
    assert error.value.sqlstate == "0A000"


def test_expression_index(connection):
    connection.execute(
        "create table notes (id int, content text); insert into notes select i, 'row ' || i from generate_series(1, 30) i; "
        "create index on notes using hnsw ((embed(content)::vector(384)) vector_ip_ops); set enable_seqscan = off"
    )
    nearest = one(connection, "select id from notes order by embed(content)::vector(384) <#> (select embed('row 7')) limit 1")
    assert nearest == 7


# --- partitions ---


@pytest.fixture
def partitioned(connection):
    """A partition that was a table with dropped columns: its attribute numbers differ from the parent's."""
    connection.execute(
        "create table notes (id int, content text, embedding vector(384)) partition by range (id); "
        "create table low partition of notes for values from (0) to (10); "
        "create table high (junk1 text, embedding vector(384), junk2 int, id int, content text); "
        "alter table high drop column junk1, drop column junk2; "
        "alter table notes attach partition high for values from (10) to (20); "
        f"create trigger zzz_gte_small_embedding {FOR_EACH_ROW} embed_trigger(); set gte_small.memo_size = 0"
    )
    return connection


def test_partitions_with_other_attribute_numbers(partitioned):
    assert runs(partitioned, "insert into notes values (1, 'a cat'), (11, 'a dog')") == 2
    assert stored(partitioned, 1) == expected(partitioned, "a cat")
    assert stored(partitioned, 11) == expected(partitioned, "a dog")
    assert runs(partitioned, "update notes set content = content || '!'") == 2
    assert stored(partitioned, 11) == expected(partitioned, "a dog!")


def test_a_row_that_changes_partition(partitioned):
    """An UPDATE that moves a row is a DELETE and an INSERT. The INSERT keeps the vector that the UPDATE made."""
    partitioned.execute("insert into notes values (1, 'a cat')")
    assert runs(partitioned, "update notes set id = 12") == 0
    assert runs(partitioned, "update notes set id = 2, content = 'a dog'") == 1
    assert stored(partitioned, 2) == expected(partitioned, "a dog")


def test_insert_into_a_leaf(partitioned):
    partitioned.execute("insert into high (id, content) values (15, 'a bird')")
    assert stored(partitioned, 15) == expected(partitioned, "a bird")


def test_inheritance(connection):
    """A child table has its own trigger, and more columns."""
    table(connection, "id int, content text, embedding vector(384)")
    connection.execute(
        "create table child (extra text) inherits (notes); "
        "create trigger zzz_gte_small_embedding before insert or update on child for each row execute function embed_trigger(); "
        "insert into child (id, content, extra) values (1, 'a cat', 'x'); update notes set content = 'a dog'"
    )
    assert stored(connection) == expected(connection, "a dog")


def test_temporary_table(connection):
    connection.execute("create temporary table notes (id int, content text, embedding vector(384))")
    connection.execute(f"create trigger zzz_gte_small_embedding {FOR_EACH_ROW} embed_trigger()")
    connection.execute("insert into notes values (1, 'a cat')")
    assert stored(connection) == expected(connection, "a cat")


def test_inside_functions_and_savepoints(connection):
    table(connection, "id int, content text, embedding vector(384)")
    connection.execute(
        "do $$ begin insert into notes values (1, 'a cat'); "
        "begin insert into notes values (2, 'a dog'); raise exception 'back'; exception when raise_exception then null; end; "
        "insert into notes values (3, 'a bird'); end $$"
    )
    assert connection.execute("select id from notes order by id").fetchall() == [(1,), (3,)]
    assert stored(connection, 3) == expected(connection, "a bird")
