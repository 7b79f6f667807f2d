"""Errors of backfill calls: each has a fact, a consequence and an action."""

import threading

import psycopg
import pytest

from backfills import make, missing, refused, wait_for, wrong
from measure import one
from test_backfill import PARTITIONED

CALLS = ["call embed_backfill({})", "call embed_backfill({}, force => true)", "select embed_backfill_step({})"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("target, definition, sqlstate, fact", [
    ("'v'", "create view v as select * from docs", "42809", "public.v is a view"),
    ("'m'", "create materialized view m as select * from docs", "42809", "public.m is a materialized view"),
    ("'s'", "create sequence s", "42809", "public.s is a sequence"),
    ("'c'", "create type c as (a int)", "42809", "public.c is a composite type"),
    ("'docs_pkey'", "", "42809", "public.docs_pkey is an index"),
    ("(select reltoastrelid::regclass from pg_class where relname = 'docs')", "", "42809", "is a TOAST table"),
    ("'f'", "create foreign data wrapper nowhere; create server far foreign data wrapper nowhere; create foreign table f (content text, embedding vector(384)) server far;"
            "create trigger t before insert on f for each row execute function embed_trigger()", "42809", "public.f is a foreign table"),
    ("999999::regclass", "", "42P01", "table with OID 999999 does not exist"),
    ("0::regclass", "", "42P01", "table with OID 0 does not exist"),
    ("'plain'", "create table plain (content text)", "42703", "table public.plain has no embedding column"),
    ("'short'", "create table short (content text, embedding vector(3)); create trigger t before insert on short for each row execute function embed_trigger()",
     "42804", "column embedding of table public.short has type public.vector(3)"),
    ("'list'", "create table list (content text, embedding real[]); create trigger t before insert on list for each row execute function embed_trigger()",
     "42804", "column embedding of table public.list has type real[]"),
    ("null", "", "22004", "target must not be NULL"),
    ("'docs', -1", "", "22023", "batch_size is -1"),
    ("'docs', batch_size => null", "", "22004", "batch_size must not be NULL"),
    ("'docs', embedding => ''", "", "42703", 'table public.docs has no embedding column ""'),
])
def test_what_makes_no_sense(connection, call, target, definition, sqlstate, fact):
    make(connection, 3)
    connection.execute(definition)
    if target.startswith("(") and call.startswith("call"):
        target = str(one(connection, f"select {target}::oid")) + "::regclass"
    assert fact in refused(connection, call.format(target), sqlstate).message_primary
    assert missing(connection) == 3


def test_a_column_of_another_name_is_told_which_there_are(connection):
    make(connection, 3)
    assert "'embedding'" in refused(connection, "call embed_backfill('docs', embedding => 'other')", "42703").message_hint
    assert "default" in refused(connection, "call embed_backfill('docs', force => null)", "22004").message_hint


def test_a_temporary_table_of_another_session(database, connection):
    connection.execute("create temp table docs (content text); select enable_semantic_search('docs')")
    oid = one(connection, "select 'docs'::regclass::oid")
    for call in CALLS:
        assert "another session" in refused(database.connect(), call.format(f"{oid}::regclass"), "0A000").message_primary
    connection.execute("call embed_backfill('docs')")


def test_a_role_without_a_right_is_told_which_it_needs(database, connection):
    """Also on partitions and their schema, which a right on the parent does not give. The hints are run."""
    connection.execute(PARTITIONED)
    other = database.connect("gte_plain")
    grants = []
    for _ in range(12):
        try:
            other.execute("call embed_backfill('docs')")
            break
        except psycopg.Error:
            diag = refused(other, "call embed_backfill('docs')", "42501")
            assert diag.message_primary.startswith("permission denied for ") and missing(connection) == 400
            grants.append(diag.message_hint.removesuffix(", or call it as the owner."))
            assert grants[-1].startswith("GRANT ") and grants[-1] not in grants[:-1]
            connection.execute(grants[-1])
    assert missing(connection) == 0 and len(grants) == 5 and "GRANT USAGE ON SCHEMA elsewhere TO gte_plain" in grants
    connection.execute("revoke update (embedding) on docs_1 from gte_plain")
    for call in (CALLS[0], CALLS[2]):
        assert "docs_1" in refused(other, call.format("'docs'"), "42501").message_primary


@pytest.mark.parametrize("force", ["false", "true"])
@pytest.mark.parametrize("statement, sqlstate, fact", [
    ("alter table docs rename content to body", "42703", "column content of table public.docs does not exist"),
    ("alter table docs drop embedding cascade", "42703", "column embedding of table public.docs does not exist"),
    ("alter table docs alter embedding type vector(3) using null", "42804", "has type public.vector(3)"),
    ("drop trigger zzz_gte_small_embedding on docs", None, "has no trigger"),
    ("alter table docs disable trigger all", None, None),
    ("drop table docs cascade", None, "does not exist"),
    ("truncate docs", None, None),
    # A walk under force that left the table out would call the embeddings of before right.
    ("alter table docs rename to other", None, None),
])
def test_what_changes_between_two_batches(database, connection, force, statement, sqlstate, fact):
    """A batch waits for the row that the other session has locked, and the statement waits for the batch."""
    make(connection, 1000)
    connection.execute("update docs set embedding = array_fill(0.051031, array[384])::vector" if force == "true" else "select 1")
    connection.execute("create table gate (n int); insert into gate values (1); create function gate() returns trigger language plpgsql as $$ begin "
                       "perform from gate for share; return new; end $$; create trigger gate before update on docs for each row when (old.id = 400) execute function gate()")
    holder, changer, caller = database.connect(autocommit=False), database.connect(autocommit=False), database.connect()
    holder.execute("select from gate for update")
    errors = []

    def work():
        try:
            caller.execute(f"call embed_backfill('docs', 16, {force})")
        except psycopg.Error as error:
            errors.append(error)

    def change():
        changer.execute(statement)

    waiting = "select count(*) from pg_locks where not granted"
    call, other = threading.Thread(target=work), threading.Thread(target=change)
    call.start()
    wait_for(lambda: one(connection, waiting) == 1)
    other.start()
    wait_for(lambda: one(connection, waiting) == 2)
    holder.commit()
    other.join(60)
    wait_for(lambda: one(connection, waiting) == 1 or not call.is_alive())
    changer.commit()
    call.join(60)
    if sqlstate is None and not (force == "true" and fact):
        assert errors == []
        assert "rename" not in statement or wrong(connection, "other") == 0
    else:
        diag = errors[0].diag
        assert fact in diag.message_primary and diag.sqlstate == (sqlstate or ("42P01" if "drop table" in statement else "55000"))
        assert diag.message_detail and diag.message_hint
