"""Tables of many partitions: a backfill has few locks at a time."""

import psycopg
import pytest

from backfills import make, refused, wait_for, wrong
from measure import one
from test_backfill_shared import working

# With an index each, four times what the lock table of the server below has room for.
PARTITIONS = 800
ROWS = PARTITIONS // 20
FEW = 100


@pytest.fixture(scope="module")
def many(server):
    """A server that is started anew with a small table of locks. Each twentieth partition has a row, at times in another schema."""
    with server.another("locks", {"max_locks_per_transaction": "256", "gte_small.model_path": str(server.tiny)}) as cluster:
        def connect(**options):
            return psycopg.connect(cluster.dsn(dbname="postgres", user="postgres"), autocommit=True, **options)

        with connect() as connection:
            connection.execute("create table docs (id int primary key, content text, embedding vector(384)) partition by range (id); create table plain (like docs)")
            for first in range(0, PARTITIONS, 100):
                connection.execute(f"do $$ begin for i in {first} .. {first + 99} loop execute format('create table docs_%s partition of docs for values from (%s) to (%s)', i, i, i + 1); "
                                   "end loop; end $$")
            connection.execute("select enable_semantic_search('docs', with_index => false)")
            connection.execute(f"insert into docs select 20 * i + 19, 'text ' || i from generate_series(0, {ROWS - 1}) i; set gte_small.own_vectors = on; update docs set embedding = null;"
                               # Pages without such a row.
                               "update docs set content = null where id = 39")
        cluster.stop()
        # The least that it starts with.
        cluster.start({"max_locks_per_transaction": "10", "max_connections": "8", "max_worker_processes": "1", "autovacuum_max_workers": "1",
                       "max_wal_senders": "0", "max_replication_slots": "0"})
        with connect() as connection:
            with pytest.raises(psycopg.errors.OutOfMemory):
                connection.execute("select count(*) from docs")
            connection.execute("create table peak (n int, place text)")
            connection.execute("create function peak() returns trigger language plpgsql as $$ begin insert into peak "
                               "select count(*), tg_table_name from pg_locks where pid = pg_backend_pid(); return null; end $$")
        yield connect


@pytest.fixture
def emptied(many):
    with many() as connection:
        connection.execute("set gte_small.own_vectors = on")
        for partition in range(19, PARTITIONS, 20):
            connection.execute(f"update docs_{partition} set embedding = null")
            connection.execute(f"drop trigger if exists peak on docs_{partition}; create trigger peak after update on docs_{partition} for each row execute function peak()")
        connection.execute("truncate peak; reset gte_small.own_vectors")
        yield connection


def right(connection):
    """Partition by partition: the table of locks is small."""
    return sum(one(connection, f"select count(*) from docs_{partition} where embedding = embed(content)") for partition in range(19, PARTITIONS, 20))


def most(connection):
    return one(connection, "select max(n) from peak")


def test_the_procedure(emptied):
    emptied.execute("call embed_backfill('docs')")
    assert right(emptied) == ROWS - 1 and most(emptied) < FEW
    emptied.execute("call embed_backfill('docs')")


def test_force(emptied):
    emptied.execute("call embed_backfill('docs', force => true)")
    assert right(emptied) == ROWS - 1 and most(emptied) < FEW


def test_a_step_lets_the_locks_go_of_partitions_where_it_wrote_nothing(many, emptied):
    done = 0
    while True:
        with emptied.transaction():
            step = one(emptied, "select embed_backfill_step('docs', 1)")
            assert one(emptied, "select count(*) from pg_locks where pid = pg_backend_pid()") < FEW
        done += step
        if step == 0:
            break
        assert step == 1 and done < ROWS
    assert done == right(emptied) == ROWS - 1


def test_with_a_row_that_can_not_be_written(emptied):
    emptied.execute("alter table docs_19 add constraint fits check (id <> 19) not valid")
    try:
        assert "(id)=(19) of public.docs_19" in refused(emptied, "call embed_backfill('docs')", "23514").message_primary
        assert right(emptied) == ROWS - 2
        assert one(emptied, "select embed_backfill_step('docs')") == 0
    finally:
        emptied.execute("alter table docs_19 drop constraint fits")


def test_a_table_renamed_while_its_lock_is_waited_for_is_walked(database, connection):
    """A forced walk that left it out would call the embeddings of before right."""
    make(connection, 300)
    connection.execute("update docs set embedding = array_fill(0.051031, array[384])::vector")
    oid = one(connection, "select 'docs'::regclass::oid")
    holder = database.connect(autocommit=False)
    holder.execute("select from docs limit 1; lock table docs in access share mode")
    with working(database, lambda c: c.execute("alter table docs rename to other")) as (renamer,):
        wait_for(lambda: one(connection, "select count(*) from pg_locks where not granted") == 1)
        with working(database, lambda c: c.execute(f"call embed_backfill({oid}::regclass, force => true)")):
            wait_for(lambda: one(connection, "select count(*) from pg_locks where not granted") == 2)
            holder.commit()
    assert wrong(connection, "other") == 0
