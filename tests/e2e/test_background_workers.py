"""`embed` without a client: in workers of autovacuum and of logical replication; and called by other functions."""

import psycopg
import pytest

from measure import embedding, one, wait_until


@pytest.fixture(scope="module")
def staffed(server):
    """A server with autovacuum and logical replication. The extension is in a schema that is in no search_path."""
    settings = {"gte_small.model_path": str(server.tiny), "wal_level": "logical", "autovacuum": "on",
                "autovacuum_naptime": "1s"}
    with server.another("workers", settings) as cluster:
        cluster.psql('drop extension "gte-small", vector; create role gte_plain login')
        yield cluster


@pytest.fixture
def make_database(staffed):
    """Creates databases with the extension in its own schema."""
    connections = []

    def make(name):
        staffed.psql(f"create database {name}")
        connection = psycopg.connect(staffed.dsn(dbname=name), autocommit=True)
        connections.append(connection)
        connection.execute('create schema ext; create extension "gte-small" schema ext cascade; grant usage on schema ext to public')
        return connection

    yield make
    for connection in connections:
        name = connection.info.dbname
        connection.close()
        staffed.psql(f"drop database {name} with (force)")


def test_autovacuum_analyzes_an_expression_index(staffed, make_database):
    """The worker embeds a sample of the rows, as the table's owner and with its own search_path."""
    connection = make_database("analyzed")
    connection.execute(
        "create table notes (content text); alter table notes owner to gte_plain; "
        "alter table notes set (autovacuum_analyze_threshold = 10, autovacuum_analyze_scale_factor = 0)"
    )
    connection.execute(
        "set search_path = public, ext; "
        "create index notes_by_meaning on notes using hnsw ((embed(content)::vector(384)) vector_ip_ops)"
    )
    said = len(staffed.log.read_text(errors="replace"))
    connection.execute("insert into notes select 'note ' || i % 50 from generate_series(1, 200) i")
    statistics = "select avg_width from pg_stats where tablename = 'notes_by_meaning'"
    wait_until(lambda: connection.execute(statistics).fetchone() is not None)
    assert one(connection, "select autoanalyze_count > 0 from pg_stat_user_tables where relname = 'notes'")
    # The size of a vector(384): the worker had all dimensions.
    assert one(connection, statistics) == 8 + 4 * 384
    assert "ERROR" not in staffed.log.read_text(errors="replace")[said:]


@pytest.fixture
def replicated(staffed, make_database):
    """A table whose texts are published in one database. Another database subscribes and embeds them on arrival."""
    publisher, subscriber = make_database("publisher"), make_database("subscriber")
    publisher.execute("create table notes (id int primary key, content text)")
    publisher.execute("insert into notes values (1, 'there before'); create publication texts for table notes")
    # Publisher and subscriber are one server: without the slot first, CREATE SUBSCRIPTION waits for itself.
    publisher.execute("select pg_create_logical_replication_slot('texts', 'pgoutput')")
    subscriber.execute(
        "create table notes (id int primary key, content text, embedding ext.vector(384)); "
        "create trigger zzz_notes_embedding before insert or update on notes for each row execute function ext.embed_trigger(); "
        "alter table notes enable always trigger zzz_notes_embedding"
    )
    source = staffed.dsn(dbname="publisher")
    subscriber.execute(
        f"create subscription texts connection '{source}' publication texts with (create_slot = false, slot_name = texts)"
    )
    yield publisher, subscriber
    subscriber.execute("drop subscription texts")


def test_a_subscriber_embeds_what_it_receives(replicated):
    """With ENABLE ALWAYS the trigger fires in the worker that copies the table and in the worker that applies changes."""
    publisher, subscriber = replicated
    right = "select count(*) from notes where embedding::text = ext.embed(content)::text and content = %s"
    wait_until(lambda: one(subscriber, right, ["there before"]) == 1)
    publisher.execute("insert into notes values (2, 'inserted')")
    wait_until(lambda: one(subscriber, right, ["inserted"]) == 1)
    publisher.execute("update notes set content = 'updated' where id = 1")
    wait_until(lambda: one(subscriber, right, ["updated"]) == 1)
    assert one(subscriber, "select count(*) from notes") == 2


def test_a_worker_that_could_not_embed_goes_on_when_it_can(server, staffed, replicated):
    """Without a model the apply worker fails and restarts: no row is skipped, and no row is stored without a vector."""
    publisher, subscriber = replicated
    wait_until(lambda: one(subscriber, "select count(*) from notes where embedding is not null") == 1)
    subscriber.execute("alter database subscriber set gte_small.model_path = '/nonexistent/model'")
    subscriber.execute("alter subscription texts disable")
    wait_until(lambda: one(subscriber, "select count(*) from pg_stat_subscription where pid is not null") == 0)
    said = len(staffed.log.read_text(errors="replace"))
    subscriber.execute("alter subscription texts enable")
    publisher.execute("insert into notes values (3, 'late')")
    wait_until(lambda: 'model file "model.safetensors" does not exist' in staffed.log.read_text(errors="replace")[said:])
    assert one(subscriber, "select count(*) from notes") == 1
    subscriber.execute("alter database subscriber reset gte_small.model_path")
    late = "select count(*) from notes where id = 3 and embedding::text = ext.embed(content)::text"
    wait_until(lambda: one(subscriber, late) == 1)


def test_functions_that_embed(connection):
    """The usual forms of SPI: an expression, a query, dynamic SQL, a caught error, a cursor's loop."""
    connection.execute("""
        create function shapes(content text) returns setof text language plpgsql as $$
        declare
          v vector;
          t text;
        begin
          v := embed(content);
          return next v;
          select embed(content) into v;
          return next v;
          execute 'select embed($1)' into v using content;
          return next v;
          for t in select embed(c) from unnest(array[content]) c loop
            return next t;
          end loop;
          begin
            perform embed_query('');
          exception when invalid_parameter_value then
            return next embed(content);
          end;
        end $$""")
    expected = one(connection, "select embed('a cat')::text")
    connection.execute("set gte_small.memo_size = 0")
    assert [row for (row,) in connection.execute("select shapes('a cat')")] == [expected] * 5
    assert len(embedding(connection, "the next call")) == 384
