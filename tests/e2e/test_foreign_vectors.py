"""Vectors that nobody knows: the note of the column says so once one has come along, and embed_verify() settles it."""

import psycopg
import pytest

from backfills import make, wrong
from measure import counting, one, unit_axis
from test_note import EMBEDS, TABLE, comment, describe, fingerprint, note, use
from test_status import status, verified
from test_trigger_rule import copy

FOREIGN = unit_axis(5)
CLEAN = ("embedding", 5, 0, 0, None)


@pytest.fixture
def docs(connection):
    """Five rows, embedded by the model in use."""
    connection.execute("create table docs (id int primary key, content text); select enable_semantic_search('docs', with_index => false); "
                       "insert into docs (id, content) select i, 'text ' || i from generate_series(1, 5) i")
    assert state(connection) == "current"
    return connection


def state(connection, table="docs"):
    return one(connection, "select state from embedding_status(%s)", [table])


def is_foreign(connection, table="docs"):
    return note(connection, table).get("foreign") is True


def heard(connection):
    said = []
    connection.add_notice_handler(lambda notice: said.append((notice.message_primary, notice.message_hint)))
    return said


def verify_all(connection, table="docs"):
    return connection.execute("select embedding, checked, wrong, missing, examples from embed_verify(%s, null)", [table]).fetchone()


# --- what is foreign ---


@pytest.mark.parametrize("way", ["insert", "copy", "update", "own text of another", "own_vectors", "upsert"])
def test_a_vector_that_comes_along(docs, way):
    if way == "insert":
        docs.execute("insert into docs values (6, 'a cat', %s)", [FOREIGN])
    elif way == "copy":
        copy(docs, "copy docs (id, content, embedding) from stdin", [f"6\ta cat\t{FOREIGN}"])
    elif way == "update":
        docs.execute("update docs set embedding = %s where id = 1", [FOREIGN])
    elif way == "own text of another":
        docs.execute("update docs set embedding = embed('something else') where id = 1")
    elif way == "own_vectors":
        docs.execute("set gte_small.own_vectors = on")
        docs.execute("update docs set content = 'a cat', embedding = %s where id = 1", [FOREIGN])
    else:
        docs.execute("insert into docs values (6, 'a cat', %s) on conflict (id) do nothing", [FOREIGN])
    assert is_foreign(docs)
    told = status(docs)
    assert told["state"] == "unknown" and told["stale"] is None
    hint = next(hint for hint in told["hints"] if "embed_verify" in hint)
    assert docs.execute(hint.partition(": ")[2]).fetchone()[2] == 1
    assert state(docs) == "unknown", "a wrong vector was found"


def test_the_first_vectors_of_a_column(connection):
    """Enabled, then filled with a thousand vectors of somebody's."""
    connection.execute("create table docs (id int, content text); select enable_semantic_search('docs', with_index => false); "
                       f"insert into docs select i, 'text ' || i, '{FOREIGN}' from generate_series(1, 1001) i")
    assert state(connection) == "unknown"
    connection.execute("insert into docs values (1002, 'ours')")
    assert state(connection) == "unknown" and note(connection)["fingerprint"] == fingerprint(connection)


@pytest.mark.parametrize("memo", [0, 128])
@pytest.mark.parametrize("statement", [
    "update docs set embedding = embed(content)",
    "update docs set embedding = null, content = content || '!'",
    "update docs set content = content || '!', embedding = embed(content || '!')",
    "insert into docs select i, 'more ' || i, embed('more ' || i) from generate_series(10, 300) i",
    "insert into docs select n, c, e from (select array_agg(i order by i) as ns, array_agg('more ' || i order by i) as cs from generate_series(10, 300) i) a, "
    "lateral unnest(ns, cs, embed(cs)) u (n, c, e)",
    "insert into docs select 10, t, embed(t) from (select repeat('a long text ', 100000) as t) x",
    "insert into docs (id, content) values (1, 'text 1'), (2, 'new') on conflict (id) do update set content = excluded.content, embedding = excluded.embedding",
    "call embed_backfill('docs')", "call embed_backfill('docs', force => true)", "select embed_backfill_step('docs')",
], ids=range(10))
def test_what_the_model_in_use_made_is_not(docs, memo, statement):
    docs.execute(f"set gte_small.memo_size = {memo}; set gte_small.defer = on; insert into docs (id, content) values (7, 'waits'); reset gte_small.defer")
    docs.execute(statement)
    assert not is_foreign(docs) and state(docs) == "current"
    docs.execute("call embed_backfill('docs')")
    assert wrong(docs) == 0 and not is_foreign(docs)


def test_a_vector_that_the_application_got_from_this_session(docs):
    value = one(docs, "select embed('a cat')::text")
    docs.execute("insert into docs values (6, 'a cat', %s)", [value])
    assert not is_foreign(docs)
    docs.execute("insert into docs values (7, 'a dog', %s)", [value])
    assert is_foreign(docs)


def test_another_model_did_not_make_it(server, docs):
    value = one(docs, "select embed('a cat')::text")
    use(docs, server.tiny_other)
    docs.execute("insert into docs values (6, 'a cat', %s)", [value])
    assert is_foreign(docs)


def test_an_update_of_another_column_is_not(docs):
    docs.execute("set gte_small.memo_size = 0; select embed('x' || i) from generate_series(1, 5000) i")
    before = comment(docs)
    docs.execute("update docs set id = id + 100; update docs set content = content, embedding = embedding")
    assert comment(docs) == before


def test_a_chunk_that_moves_is_not(database, connection):
    connection.execute(database.server.chunks_sql.read_text())
    parts = "".join(" ".join(f"Part {n} sentence {i} says very little." for i in range(60)) + "\n\n" for n in range(4))
    connection.execute("insert into documents (content) values (%s)", [parts])
    connection.close()
    session = database.connect()
    with counting(session) as counted:
        session.execute("update documents set content = 'A new beginning, and nothing more. ' || repeat('It goes on. ', 200) || E'\\n\\n' || content")
    assert 0 < counted.texts < one(session, "select count(*) from chunks")
    assert state(session, "chunks") == "current"


def test_no_model_is_needed(database, docs):
    database.configure("gte_small.model_path", "/nonexistent/model")
    session = database.connect()
    session.execute("insert into docs values (6, 'a cat', %s)", [FOREIGN])
    assert is_foreign(session)


def test_a_write_of_the_extensions_own_ends_with_its_error(docs):
    """A backfill that failed leaves nothing behind that calls later vectors the extension's."""
    docs.execute("create function no() returns trigger language plpgsql as 'begin raise exception $$no$$; end'; set gte_small.defer = on; "
                 "insert into docs (id, content) values (6, 'waits'); reset gte_small.defer; "
                 "create trigger no before update on docs for each row execute function no()")
    assert one(docs, "select embed_backfill_step('docs')") == 0
    docs.execute("insert into docs values (7, 'a cat', %s)", [FOREIGN])
    assert is_foreign(docs)
    docs.execute("do $$ begin perform gte_small.own_write('docs', true); end $$")
    describe(docs, {})
    docs.execute("insert into docs values (8, 'a cat', %s)", [FOREIGN])
    assert is_foreign(docs)


# --- transactions ---


def test_it_is_noted_once(docs):
    with docs.transaction():
        docs.execute("insert into docs select i, 'x', %s from generate_series(10, 500) i", [FOREIGN])
        before = comment(docs)
        docs.execute("insert into docs select i, 'x', %s from generate_series(501, 600) i", [FOREIGN])
    docs.execute("insert into docs values (601, 'x', %s)", [FOREIGN])
    assert comment(docs) == before


def test_a_rollback_to_a_savepoint_takes_the_note_back(docs):
    with docs.transaction():
        docs.execute("savepoint here; insert into docs values (6, 'x', '%s')" % FOREIGN)
        assert is_foreign(docs)
        docs.execute("rollback to savepoint here")
        assert not is_foreign(docs)
        docs.execute("insert into docs values (6, 'x', %s)", [FOREIGN])
        assert is_foreign(docs)
    assert is_foreign(docs)


def test_a_rollback_after_which_the_next_transaction_notes_it_again(docs):
    for end in ("rollback", "commit"):
        docs.execute("begin; insert into docs values (6, 'x', '%s'); %s" % (FOREIGN, end))
        assert is_foreign(docs) is (end == "commit")


def test_exception_blocks(docs):
    docs.execute(
        f"do $$ begin for i in 10 .. 13 loop begin insert into docs values (i, 'x', '{FOREIGN}'); "
        "if i < 13 then raise exception 'back'; end if; exception when raise_exception then null; end; end loop; end $$")
    assert is_foreign(docs)


def test_disabled_and_enabled_again_in_one_transaction(docs):
    with docs.transaction():
        docs.execute("insert into docs values (6, 'x', %s)", [FOREIGN])
        docs.execute("select disable_semantic_search('docs'); select enable_semantic_search('docs', with_index => false)")
        describe(docs, {"fingerprint": fingerprint(docs)})
        docs.execute("insert into docs values (7, 'x', %s)", [FOREIGN])
    assert is_foreign(docs)


def test_a_read_only_transaction_and_a_table_without_note(connection):
    connection.execute(TABLE.format("pg_temp.docs"))
    describe(connection, {}, "pg_temp.docs")
    connection.execute("begin read only; insert into pg_temp.docs values (1, 'a cat', '%s'); commit" % FOREIGN)
    assert note(connection, "pg_temp.docs") == {}
    describe(connection, "mine", "pg_temp.docs")
    connection.execute("insert into pg_temp.docs values (1, 'a cat', %s)", [FOREIGN])
    assert comment(connection, "pg_temp.docs")[0] == "mine"


# --- partitions ---


@pytest.fixture
def parts(connection):
    connection.execute(
        "create table docs (id int, content text, embedding vector(384)) partition by range (id); create table low partition of docs for values from (0) to (10); "
        "create table high (embedding vector(384), junk int, content text, id int); alter table high drop column junk; "
        "alter table docs attach partition high for values from (10) to (20); " + EMBEDS.format("docs"))
    describe(connection, {})
    connection.execute("insert into docs values (1, 'a cat'), (2, repeat('a dog ', 100000)), (3, null)")
    connection.execute("alter table low alter content set storage external")
    return connection


def test_a_row_that_moves_to_another_partition_keeps_its_vector(database, parts):
    parts.close()
    session = database.connect()
    with counting(session) as counted:
        session.execute("update docs set id = id + 10")
    assert counted.texts == 0 and one(session, "select count(*) from high where embedding is not null") == 2
    assert state(session) == "current"
    session.execute("update docs set id = id - 10, content = 'a cow' where id = 12")
    assert state(session) == "current" and one(session, "select embedding = embed('a cow') from low")
    session.execute("insert into high (id, content, embedding) values (15, 'a cow', %s)", [FOREIGN])
    assert is_foreign(session)


def test_a_partition_settles_nothing(parts):
    parts.execute("insert into low values (5, 'a cow', %s)", [FOREIGN])
    parts.execute("delete from low where id = 5")
    said = heard(parts)
    assert verify_all(parts, "low")[2] == 0 and is_foreign(parts)
    assert len(said) == 1 and "is a partition" in said[0][0] and "docs" in said[0][1]
    assert verify_all(parts)[2] == 0 and not is_foreign(parts)


# --- embed_verify ---


@pytest.fixture
def right(database, docs):
    """Vectors that are right came from elsewhere."""
    docs.execute("create table elsewhere as table docs; truncate docs; insert into docs table elsewhere")
    docs.close()
    connection = database.connect()
    connection.execute("delete from docs")
    connection.execute("insert into docs table elsewhere")
    assert state(connection) == "unknown"
    return connection


def test_it_settles_what_is_right(right):
    before = note(right)
    assert verified(right) == CLEAN, "the table has fewer rows than the sample"
    assert state(right) == "current" and note(right) == {**{k: v for k, v in before.items() if k not in ("foreign", "empty", "began")}, "fingerprint": fingerprint(right)}


@pytest.mark.parametrize("sample, settles", [("3", False), ("5", False), ("6", True), ("null", True)])
def test_only_a_comparison_of_all_rows_does(right, sample, settles):
    verified(right, f"'docs', {sample}")
    assert (state(right) == "current") is settles


def test_a_sample_of_a_large_table_settles_nothing(right):
    right.execute("insert into docs (id, content) select i, 'more ' || i from generate_series(10, 3000) i")
    right.execute("vacuum analyze docs")
    assert verified(right, "'docs', 200")[1] == 200 and state(right) == "unknown"
    assert verified(right, "'docs', null")[1:4] == (2996, 0, 0) and state(right) == "current"


def test_unknown_models_become_known(connection):
    connection.execute("create table docs (content text, embedding vector(384)); insert into docs values ('a cat', embed('a cat')); "
                       "select enable_semantic_search('docs', with_index => false)")
    assert state(connection) == "unknown"
    assert verify_all(connection)[1:4] == (1, 0, 0) and state(connection) == "current"


def test_vectors_that_came_while_the_trigger_was_off(docs):
    """A subscription, or pg_restore --data-only --disable-triggers, into a table that was empty."""
    docs.execute("create table elsewhere as table docs; truncate docs; select enable_semantic_search('docs', with_index => false)")
    assert note(docs)["empty"] is True
    docs.execute("set session_replication_role = replica; insert into docs table elsewhere; reset session_replication_role")
    assert state(docs) == "unknown" and any("embed_verify" in hint for hint in status(docs)["hints"])
    assert verify_all(docs) == CLEAN and state(docs) == "current"


@pytest.mark.parametrize("who", ["reader", "policy", "read only", "repeatable read"])
def test_who_can_not_settle_it_is_told_who_can(database, right, who):
    right.execute("grant select on docs to gte_plain")
    if who == "policy":
        right.execute("grant insert on docs to gte_plain; alter table docs enable row level security; create policy few on docs using (id < 4)")
    session = database.connect() if who in ("read only", "repeatable read") else database.connect("gte_plain")
    session.execute({"read only": "begin read only", "repeatable read": "begin isolation level repeatable read"}.get(who, "begin"))
    said = [(fact, hint) for fact, hint in heard(session)]
    session.add_notice_handler(lambda notice: said.append((notice.message_primary, notice.message_hint)))
    assert verify_all(session)[2] == 0
    session.execute("commit")
    fact, hint = said[-1]
    assert 'stays "unknown"' in fact and hint
    if who == "reader":
        assert "postgres" in hint
    assert state(right) == "unknown"


def test_who_may_write_settles_it(database, right):
    right.execute("grant select, insert on docs to gte_plain")
    assert verify_all(database.connect("gte_plain")) == CLEAN
    assert state(right) == "current"


def test_nobody_else_changes_the_note(database, right):
    right.execute("grant select on docs to gte_plain")
    plain = database.connect("gte_plain")
    for call in ("gte_small.note_settle('docs', 'embedding', true)", "gte_small.note_lock('docs', 'embedding')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            plain.execute(f"select {call}")
    assert is_foreign(right)


def test_while_others_write_vectors_of_their_own_it_stays_unknown(database, right):
    """Their rows are not visible yet, and the note says already what they would note."""
    writer = database.connect()
    writer.execute("begin; insert into docs values (6, 'x', '%s')" % FOREIGN)
    said = heard(right)
    assert verify_all(right) == CLEAN and state(right) == "unknown"
    assert "other sessions are writing" in said[-1][0]
    writer.execute("rollback")
    assert verify_all(right) == CLEAN and state(right) == "current"


def test_a_writer_notes_it_again_after_it_was_settled(database, right):
    writer = database.connect()
    right.execute("begin")
    verify_all(right)
    writer.execute("set lock_timeout = '100ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        writer.execute("insert into docs values (6, 'x', %s)", [FOREIGN])
    # Rows that the model in use embeds do not wait.
    writer.execute("insert into docs (id, content) values (7, 'ours')")
    right.execute("commit")
    assert state(right) == "current"
    writer.execute("insert into docs values (6, 'x', %s)", [FOREIGN])
    assert state(right) == "unknown"


def test_settled_and_foreign_again_in_one_transaction(right):
    with right.transaction():
        right.execute("insert into docs select 6, 'text 6', embed('text 6')")
        verify_all(right)
        assert not is_foreign(right)
        right.execute("insert into docs values (7, 'x', %s)", [FOREIGN])
    assert is_foreign(right)


def test_a_row_that_comes_during_the_comparison_is_compared_too(database, right):
    since = one(right, "select pg_snapshot_xmin(pg_current_snapshot())::xid::text")
    other = database.connect()
    other.execute("set session_replication_role = replica; insert into docs values (6, 'x', '%s')" % FOREIGN)
    said = heard(right)
    right.execute("select gte_small.settle('docs', 'embedding', '{content}', %s::xid)", [since])
    assert state(right) == "unknown" and "wrong vector was written meanwhile" in said[-1][0]
    later = one(right, "select pg_snapshot_xmin(pg_current_snapshot())::xid::text")
    right.execute("select gte_small.settle('docs', 'embedding', '{content}', %s::xid)", [later])
    assert state(right) == "current", "only rows from then on are compared"


# --- force, and dumps ---


def test_a_forced_backfill_makes_them_known(docs):
    docs.execute("insert into docs values (6, 'x', %s)", [FOREIGN])
    docs.execute("call embed_backfill('docs', force => true)")
    assert state(docs) == "current" and wrong(docs) == 0


def test_what_comes_during_a_forced_backfill_is_noted(connection):
    """It may be in a block that the walk has left."""
    make(connection, 300)
    connection.execute("call embed_backfill('docs')")
    connection.execute("create function add() returns trigger language plpgsql as $$ begin "
                       f"insert into docs values (1000, 'x', '{FOREIGN}'); return null; end $$; "
                       "create trigger add after update on docs for each row when (new.id = 200) execute function add()")
    connection.execute("call embed_backfill('docs', force => true)")
    assert note(connection) == {**note(connection), "foreign": True} and state(connection) == "unknown"


def test_a_dump_carries_it(database, server, docs):
    docs.execute("insert into docs values (6, 'x', %s)", [FOREIGN])
    restored = server.create_database("template0")
    try:
        restored.psql(database.server.cluster.tool("pg_dump", "--dbname", database.name).stdout)
        session = restored.connect()
        assert state(session) == "unknown" and note(session) == note(docs)
        # Data alone goes through the trigger.
        session.execute("truncate docs; select enable_semantic_search('docs', with_index => false)")
        describe(session, {"fingerprint": fingerprint(session)})
        restored.psql(database.server.cluster.tool("pg_dump", "--data-only", "--table=docs", "--dbname", database.name).stdout)
        assert state(session) == "unknown"
    finally:
        restored.drop()


def test_a_vector_of_the_model_in_use_is_its_first_write(docs):
    describe(docs, {"empty": True, "fingerprint": "f" * 64})
    docs.execute("update docs set embedding = embed(content)")
    docs.execute("insert into docs (id, content) values (6, 'a cat')")
    assert {**note(docs), "began": None} == {"fingerprint": fingerprint(docs), "began": None}


# --- vectors of before the first own one ---

ENABLED = "create table docs (id int primary key, content text); select enable_semantic_search('docs', with_index => false)"


def test_vectors_that_came_while_the_trigger_was_off_are_not_current_after_an_own_write(connection):
    connection.execute(ENABLED)
    connection.execute("set session_replication_role = replica")
    connection.execute("insert into docs (id, content, embedding) select i, 'text ' || i, %s from generate_series(1, 3) i", [FOREIGN])
    connection.execute("reset session_replication_role")
    assert state(connection) == "unknown"
    connection.execute("insert into docs (id, content) values (4, 'an own one')")
    assert state(connection) == "unknown"
    assert any("3 vectors are older" in hint and "embed_verify" in hint for hint in status(connection)["hints"])
    connection.execute("call embed_backfill('docs', force => true)")
    assert state(connection) == "current"


def test_right_vectors_of_before_are_settled_by_a_comparison(connection):
    connection.execute(ENABLED)
    connection.execute("set session_replication_role = replica")
    connection.execute("insert into docs (id, content, embedding) select i, 'text ' || i, embed('text ' || i) from generate_series(1, 3) i")
    connection.execute("reset session_replication_role")
    connection.execute("insert into docs (id, content) values (4, 'an own one')")
    assert state(connection) == "unknown"
    assert verify_all(connection)
    assert state(connection) == "current"


def test_rows_without_a_vector_of_before_are_not_counted(connection):
    connection.execute("create table docs (id int primary key, content text); insert into docs select i, 'text ' || i from generate_series(1, 5) i;")
    connection.execute("select enable_semantic_search('docs')")
    connection.execute("call embed_backfill('docs')")
    connection.execute("insert into docs (id, content) values (9, 'another')")
    assert state(connection) == "current"


def test_a_wrong_vector_that_is_found_makes_the_column_unknown(docs):
    docs.execute("set session_replication_role = replica")
    docs.execute("update docs set embedding = %s where id = 3", [FOREIGN])
    docs.execute("reset session_replication_role")
    assert state(docs) == "current", "nobody has looked"
    assert one(docs, "select wrong from embed_verify('docs')") == 1
    assert state(docs) == "unknown"
    # To verify again would say the same.
    [mending] = [hint for hint in status(docs)["hints"] if hint.startswith("embed_verify found vectors")]
    docs.execute(mending.partition(": ")[2])
    assert state(docs) == "current" and not [hint for hint in status(docs)["hints"] if "embed_" in hint]
    assert "wrong" not in one(docs, "select obj_description(oid, 'pg_trigger') from pg_trigger where tgname = 'zzz_gte_small_embedding'")
