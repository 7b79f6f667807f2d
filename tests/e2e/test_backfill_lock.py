"""The lock of a forced backfill: only the owner of the table can hold it."""

import psycopg
import pytest

from backfills import make, refused, wrong
from measure import one

FORCE = "call embed_backfill('docs', force => true)"
ACQUIRE = "select gte_small.backfill_force_acquire('docs')"


@pytest.fixture
def docs(database, connection):
    make(connection, 200)
    connection.execute("alter table docs owner to gte_owner; grant select on docs to gte_reader")
    return connection


def test_a_stranger_keeps_nobody_from_forcing(database, docs):
    """He reads the table and holds the advisory locks that one could think of, also that of version 0.1.0."""
    stranger = database.connect("gte_reader", autocommit=False)
    stranger.execute("select count(*) from docs; lock table docs in access share mode")
    table = one(stranger, "select 'docs'::regclass::oid")
    key = one(stranger, "select hashtext('gte-small embed_backfill')")
    for first in (key, 1259, 2620, 26484, 0):
        stranger.execute("select pg_advisory_lock(%s::int, %s::int), pg_advisory_xact_lock(%s::int, %s::int)",
                         [first, table, first, table])
    stranger.execute("select pg_advisory_lock(%s::bigint)", [table])
    stranger.execute("select pg_advisory_lock((%s::bigint << 32) | %s)", [key, table])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        with stranger.transaction():
            stranger.execute(ACQUIRE)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        with stranger.transaction():
            stranger.execute("lock table docs in share update exclusive mode")

    owner = database.connect("gte_owner")
    owner.execute("set lock_timeout = '5s'; set gte_small.memo_size = 0")
    owner.execute(FORCE)
    assert wrong(docs) == 0 and one(docs, "select state from embedding_status('docs')") == "current"
    assert one(stranger, "select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'") > 5


def test_a_member_of_the_owner_keeps_the_owner_out_and_the_other_way_round(database, docs):
    docs.execute("grant gte_owner to gte_plain")
    try:
        for one_of_two, other in (("gte_owner", "gte_plain"), ("gte_plain", "gte_owner"), ("postgres", "gte_owner")):
            holder = database.connect(one_of_two, autocommit=False)
            assert one(holder, ACQUIRE) is True
            session = database.connect(other)
            assert one(session, ACQUIRE) is False
            assert "another session" in refused(session, FORCE, "55006").message_primary
            # Another table has another lock.
            session.execute("create temporary table docs_2 (content text)")
            assert one(session, "select gte_small.backfill_force_acquire('docs_2')") is True
            holder.rollback()
            assert one(session, ACQUIRE) is True
    finally:
        docs.execute("revoke gte_owner from gte_plain")


def test_a_newcomer_sees_the_lock_in_pg_locks(database, docs):
    """He looks there first. So the number in the SQL must be that of the library."""
    with docs.transaction():
        assert one(docs, ACQUIRE) is True
        seen = docs.execute("select classid::regclass::text, objid::regclass::text, objsubid, mode from pg_locks "
                            "where locktype = 'object' and pid = pg_backend_pid() and mode = 'ExclusiveLock'").fetchall()
        assert seen == [("pg_class", "docs", 26484, "ExclusiveLock")]
        source = one(docs, "select prosrc from pg_proc where proname = 'backfill_force_lock'")
        assert "l.objsubid = 26484" in source
    assert one(docs, "select count(*) from pg_locks where objsubid = 26484") == 0, "it ends with the transaction"


def test_what_is_no_table_is_refused(docs):
    assert "does not exist" in refused(docs, "select gte_small.backfill_force_acquire(0)", "42P01").message_primary
    assert "does not exist" in refused(docs, "select gte_small.backfill_force_acquire(4294967295::oid)", "42P01").message_primary
    assert one(docs, "select gte_small.backfill_force_acquire(null)") is None
