"""embed_backfill(force => true): after a change of the model each row is embedded again, once."""

import json
import threading

import psycopg
import pytest

from backfills import fingerprint, make, missing, note, notices, refused, wait_for, wrong
from measure import counting, one
from test_backfill import PARTITIONED
from test_backfill_shared import Worker, backfill, working

FORCE = "call embed_backfill('docs', force => true)"


@pytest.fixture
def other_model(database):
    """A session on another model, as after a restart with another gte_small.model_path."""
    session = database.connect()
    session.execute(f"set gte_small.model_path = '{database.server.tiny_other}'; set gte_small.memo_size = 0")
    return session


def state(connection, table="docs"):
    return one(connection, f"select state from embedding_status('{table}')")


def test_a_change_of_model_is_seen_and_mended(database, connection, other_model):
    make(connection, 500)
    connection.execute("call embed_backfill('docs')")
    assert state(connection) == "current"
    rows, embedded, stale, filled, loaded, hints = other_model.execute(
        "select rows, embedded, stale, filled_with, loaded, hints from embedding_status('docs')").fetchone()
    assert state(other_model) == "stale" and (rows, embedded, stale) == (500, 500, 500)
    assert filled == fingerprint(connection) and loaded == fingerprint(other_model) != filled
    assert any("force => true" in hint for hint in hints)

    # Writing warns once and marks the column.
    with notices(other_model) as heard:
        other_model.execute("insert into docs values (501, 'by the other')")
        other_model.execute("insert into docs values (502, 'by the other too')")
    assert [severity for severity, _ in heard] == ["WARNING"], heard
    assert state(other_model) == state(connection) == "mixed" and note(connection)["mixed"] is True

    with counting(other_model) as counted:
        other_model.execute(FORCE)
    assert 502 <= counted.texts <= 510, "each row runs the model once"
    assert wrong(other_model) == 0 and state(other_model) == "current" and state(connection) == "stale"
    assert note(connection)["fingerprint"] == fingerprint(other_model) and "mixed" not in note(connection)
    assert one(other_model, "select content from query_docs('text 77', 0.5, 1)") == "text 77"


def test_the_column_is_searchable_meanwhile(database, connection, other_model):
    make(connection, 3000)
    connection.execute("call embed_backfill('docs')")
    worker = Worker(database, lambda c: (c.execute(f"set gte_small.model_path = '{database.server.tiny_other}'"), c.execute(FORCE)))
    worker.start()
    # The note itself: the status counts all rows, which takes as long as the backfill on some machines.
    wait_for(lambda: "force" in note(connection))
    while worker.is_alive():
        assert missing(connection) == 0
        assert one(connection, "select count(*) from query_docs('text 5', null, 3)") == 3
    worker.join()
    assert state(other_model) == "current"


def test_it_resumes_where_it_ended_with_the_same_model(database, connection, other_model):
    make(connection, 2000)
    connection.execute("call embed_backfill('docs')")
    connection.execute("create table place as select note from embedding_columns('docs')")
    trigger = one(connection, "select format('%I on docs', trigger_name) from embedding_columns('docs')")
    block = one(connection, "select max((ctid::text::point)[0]::int) / 2 from docs")
    force = {"fingerprint": fingerprint(other_model), "content": ["content"], "leaf": "public.docs", "block": block,
             "file": one(connection, "select pg_relation_filenode('docs')::int"),
             "since": str(one(connection, "select pg_snapshot_xmin(pg_current_snapshot())::text"))}
    left = one(connection, f"select count(*) from docs where (ctid::text::point)[0] >= {block}")
    assert 500 < left < 1500

    def leave(force):
        text = "gte-small " + json.dumps({**note(connection), "force": force})
        connection.execute(f"comment on trigger {trigger} is '{text}'")

    def texts():
        with counting(other_model) as counted:
            other_model.execute(FORCE)
        return counted.texts

    leave(force)
    assert state(connection) == "re-embedding"
    assert texts() == left, "what was done before is not done again"
    leave({**force, "fingerprint": "of a third model"})
    assert texts() == 2000, "another model's walk is not gone on with"
    leave({**force, "file": 1})
    assert texts() == 2000, "rows stand elsewhere after VACUUM FULL"
    leave({**force, "leaf": "gone"})
    assert texts() == 2000
    for broken in ({"fingerprint": fingerprint(other_model)}, {**force, "block": "x"}, {**force, "since": "-1"},
                   {**force, "own": "x"}, {**force, "own": [[1, "y"]]}, {**force, "own": [[1, 10**15], [[]], 7]}, [], "x"):
        leave(broken)
        other_model.execute(FORCE)
        assert wrong(other_model) == 0 and state(other_model) == "current"


def test_the_place_is_saved_while_it_runs(database, connection, other_model):
    """Row locks of others make the pass wait, long enough for the test to read the saved position."""
    make(connection, 2000)
    connection.execute("call embed_backfill('docs')")
    holder = database.connect(autocommit=False)
    holder.execute("select from docs where id in (700, 900) for update")
    block = one(connection, "select (ctid::text::point)[0]::int from docs where id = 700")
    with notices(other_model) as heard:
        other_model.execute(FORCE)
    assert any("2 rows" in message and "left out" in message for _, message in heard), heard
    assert note(connection)["force"]["block"] == block and state(other_model) == "re-embedding"
    assert wrong(other_model) == 2
    holder.rollback()
    with counting(other_model) as counted:
        other_model.execute(FORCE)
    assert 2 <= counted.texts < 1000, "the rows that the first call wrote are known, also in another session's walk"
    assert wrong(other_model) == 0 and state(other_model) == "current"


def test_a_locked_row_is_waited_for(database, connection, other_model):
    make(connection, 500)
    connection.execute("call embed_backfill('docs')")
    holder = database.connect(autocommit=False)
    holder.execute("select from docs where id = 70 for update")
    worker = Worker(database, lambda c: (c.execute(f"set gte_small.model_path = '{database.server.tiny_other}'"), c.execute(FORCE)))
    worker.start()
    wait_for(lambda: wrong(other_model) == 1)
    holder.execute("update docs set id = 10070 where id = 70")
    holder.commit()
    worker.join()
    assert wrong(other_model) == 0 and state(other_model) == "current"


def test_only_one_session_forces(database, connection):
    make(connection, 8000)
    worker = Worker(database, lambda c: c.execute(FORCE))
    worker.start()
    wait_for(lambda: "force" in note(connection))
    assert "embedding all rows" in refused(connection, FORCE, "55006").message_primary
    worker.join()
    connection.execute(FORCE)


def test_a_failed_call_leaves_no_lock(database, connection):
    make(connection, 3000)
    connection.execute("set statement_timeout = '100ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute(FORCE)
    other = database.connect()
    other.execute(FORCE)
    assert wrong(other) == 0


def test_only_the_owner_forces_and_only_the_whole(database, connection):
    connection.execute(PARTITIONED)
    connection.execute("grant select, update on all tables in schema public, elsewhere to gte_plain; grant usage on schema elsewhere to gte_plain")
    assert "owner" in refused(database.connect("gte_plain"), FORCE, "42501").message_primary
    assert "partition" in refused(connection, "call embed_backfill('docs_1', force => true)", "42809").message_primary
    connection.execute(FORCE)
    assert wrong(connection) == 0 and state(connection) == "current"


def test_partitions_are_walked_each_and_attached_ones_too(database, connection, other_model):
    connection.execute(PARTITIONED)
    connection.execute("call embed_backfill('docs')")
    connection.execute("create table docs_4 (like docs); insert into docs_4 (id, content, embedding) select 400, 'new ' || i, embed('old') from generate_series(1, 50) i")
    holder = database.connect(autocommit=False)
    holder.execute("select from docs where id = 350 for update")
    worker = Worker(database, lambda c: (c.execute(f"set gte_small.model_path = '{database.server.tiny_other}'"), c.execute(FORCE)))
    worker.start()
    wait_for(lambda: wrong(other_model) == 1)
    connection.execute("alter table docs attach partition docs_4 for values from (400) to (500)")
    holder.rollback()
    worker.join()
    assert one(connection, "select count(*) from docs") == 450 and wrong(other_model) == 0


def test_rows_without_text_lose_a_vector_and_too_long_ones_theirs(connection):
    make(connection, 100)
    connection.execute("call embed_backfill('docs')")
    connection.execute("update docs set content = repeat('word ', 5000) where id = 7")
    connection.execute("set session_replication_role = replica; update docs set content = null where id = 8; reset session_replication_role")
    connection.execute("set gte_small.on_truncate = 'error'")
    assert "(id)=(7)" in refused(connection, FORCE, "22001").message_primary
    assert connection.execute("select id from docs where embedding is null order by id").fetchall() == [(7,), (8,)]
    assert state(connection) == "current"


def test_vectors_of_unknown_models_become_known(connection):
    connection.execute("create table docs (id int, content text, embedding vector(384));"
                       "insert into docs select i, 'text ' || i, array_fill(0.05, array[384])::vector from generate_series(1, 80) i;"
                       "select enable_semantic_search('docs', with_index => false)")
    assert state(connection) == "unknown"
    connection.execute("call embed_backfill('docs')")
    assert state(connection) == "unknown" and one(connection, "select stale from embedding_status('docs')") is None
    connection.execute(FORCE)
    assert state(connection) == "current" and wrong(connection) == 0


def test_a_comment_of_ones_own_on_the_trigger_stays(connection):
    make(connection, 20)
    connection.execute("create table other (content text, embedding vector(384)); insert into other values ('a');"
                       "create trigger zzz before insert or update on other for each row execute function embed_trigger();"
                       "comment on trigger zzz on other is 'mine'")
    connection.execute("call embed_backfill('other', force => true)")
    assert wrong(connection, "other") == 0
    assert one(connection, "select obj_description(oid, 'pg_trigger') from pg_trigger where tgname = 'zzz'") == "mine"


def test_a_model_change_in_the_middle_is_an_error(database, connection):
    """A running session uses a new gte_small.model_path of the server from the next batch on."""
    make(connection, 300)
    connection.execute(f"""create function switch() returns trigger language plpgsql as $$
        begin perform set_config('gte_small.model_path', '{database.server.tiny_other}', false); return new; end $$;
        create trigger switch before update on docs for each row when (new.id = 1) execute function switch()""")
    assert "model" in refused(connection, FORCE, "55000").message_primary
    assert state(connection) == "re-embedding"
