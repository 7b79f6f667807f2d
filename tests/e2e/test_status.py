"""embedding_status, embed_verify and suggest_threshold: their reports about a column are right."""

import csv
import json

import pytest

from backfills import fingerprint, make, missing, note, refused
from conftest import CLONE
from measure import one
from test_backfill import PARTITIONED

SHARED = CLONE.parent / "shared" / "data"


def status(connection, table="docs"):
    with connection.cursor() as cursor:
        rows = cursor.execute("select * from embedding_status(%s)", [table]).fetchall()
        names = [column.name for column in cursor.description]
    assert len(rows) == 1
    return dict(zip(names, rows[0]))


def test_a_table_before_and_after_its_backfill(connection):
    make(connection, 40)
    connection.execute("insert into docs values (41, null)")
    before = status(connection)
    assert (before["rows"], before["embedded"], before["missing"], before["stale"], before["state"]) == (41, 0, 40, 0, "empty")
    assert before["loaded"] == fingerprint(connection)
    assert not before["index_present"] and before["trigger_enabled"]
    assert any("40 rows" in hint and "embed_backfill('public.docs')" in hint for hint in before["hints"])
    assert any("CREATE INDEX" in hint for hint in before["hints"])
    for hint in before["hints"]:
        connection.execute(hint.partition(": ")[2])
    after = status(connection)
    assert (after["embedded"], after["missing"], after["state"], after["hints"]) == (40, 0, "current", [])
    assert after["filled_with"] == after["loaded"] and after["index_present"]


def test_a_disabled_trigger_and_a_lost_note(connection):
    make(connection, 10)
    connection.execute("call embed_backfill('docs')")
    connection.execute("alter table docs disable trigger zzz_gte_small_embedding")
    connection.execute("comment on trigger zzz_gte_small_embedding on docs is null")
    told = status(connection)
    assert not told["trigger_enabled"] and told["state"] == "unknown" and told["stale"] is None
    enable = next(hint for hint in told["hints"] if "ENABLE TRIGGER" in hint)
    connection.execute(enable.partition(": ")[2])
    assert status(connection)["trigger_enabled"]


@pytest.mark.parametrize("index, counts", [
    ("using hnsw (embedding vector_ip_ops)", True), ("using hnsw (embedding vector_cosine_ops)", False),
    ("using hnsw (embedding vector_l2_ops)", False), ("using ivfflat (embedding vector_ip_ops) with (lists = 1)", True), ("(id)", False),
    ("using hnsw (embedding vector_ip_ops) where id > 5", False),
])
def test_which_index_counts(connection, index, counts):
    make(connection, 10)
    connection.execute(f"set client_min_messages = error; create index on docs {index}")
    assert status(connection)["index_present"] is counts


def test_the_hint_for_an_index_names_pgvectors_schema(connection):
    make(connection, 10)
    connection.execute("create schema vectors; alter extension vector set schema vectors")
    hint = next(hint for hint in status(connection)["hints"] if "CREATE INDEX" in hint)
    assert "vectors.vector_ip_ops" in hint
    connection.execute(hint.partition(": ")[2])
    assert status(connection)["index_present"]


def test_an_invalid_index_and_one_on_a_single_partition_do_not_count(connection):
    connection.execute(PARTITIONED)
    connection.execute("create index on docs_1 using hnsw (embedding vector_ip_ops)")
    assert not status(connection)["index_present"] and status(connection, "docs_1")["index_present"]
    connection.execute("create index whole on only docs using hnsw (embedding vector_ip_ops)")
    assert not status(connection)["index_present"], "not valid before each partition has one"
    connection.execute("drop index whole; create index on docs using hnsw (embedding vector_ip_ops)")
    assert status(connection)["index_present"]
    connection.execute("alter table docs_1 disable trigger zzz_gte_small_embedding")
    assert not status(connection)["trigger_enabled"]


def test_without_a_model_it_still_answers_and_shows_no_path(database, server):
    connection = database.connect()
    make(connection, 5)
    connection.execute("call embed_backfill('docs'); ")
    connection.execute("grant select on docs to gte_plain")
    nowhere = server.scratch / "secret-nowhere"
    database.configure("gte_small.model_path", nowhere)
    plain = database.connect("gte_plain")
    told = status(plain)
    assert told["loaded"] is None and told["embedded"] == 5 and told["filled_with"]
    assert any("embed_model()" in hint for hint in told["hints"])
    assert "secret" not in json.dumps(told)


def test_a_table_without_an_embedding_column_has_no_status(connection):
    connection.execute("create table plain (content text)")
    assert connection.execute("select * from embedding_status('plain')").fetchall() == []


# --- embed_verify ---


def verified(connection, arguments="'docs'"):
    return connection.execute(f"select embedding, checked, wrong, missing, examples from embed_verify({arguments})").fetchone()


@pytest.mark.parametrize("way", ["disabled trigger", "replica role", "foreign write"])
def test_vectors_of_another_text_are_found(connection, way):
    make(connection, 200)
    connection.execute("call embed_backfill('docs')")
    assert verified(connection) == ("embedding", 200, 0, 0, None)
    change = "update docs set content = 'something else entirely ' || id where id between 11 and 17"
    if way == "disabled trigger":
        connection.execute("alter table docs disable trigger user")
        connection.execute(change)
        connection.execute("insert into docs values (201, 'new')")
        connection.execute("alter table docs enable trigger user")
    elif way == "replica role":
        connection.execute("set session_replication_role = replica")
        connection.execute(change)
        connection.execute("insert into docs values (201, 'new')")
        connection.execute("reset session_replication_role")
    else:
        connection.execute("update docs set embedding = embed('somebody else''s') where id between 11 and 17")
        connection.execute("insert into docs (id) values (201)")
        connection.execute("set session_replication_role = replica; update docs set content = 'new' where id = 201; reset session_replication_role")
    embedding, checked, wrong, missing, examples = verified(connection)
    assert (checked, wrong, missing) == (201, 7, 1)
    table, place = examples[0].split(" ")
    assert len(examples) == 5 and one(connection, f"select id from {table} where ctid = '{place}'") in range(11, 18)


def test_vectors_without_text_and_of_other_dimensions_are_wrong(connection):
    connection.execute("create table docs (content text, embedding vector); insert into docs values ('a', '[1,2]'), (null, '[1,2]'), ('b', null), (null, null);"
                       "create trigger zzz before insert or update on docs for each row execute function embed_trigger()")
    assert verified(connection)[1:4] == (3, 2, 1)


def test_a_sample_of_a_large_table(connection):
    make(connection, 3000)
    connection.execute("call embed_backfill('docs')")
    connection.execute("update docs set embedding = embed('other') where id % 2 = 0")
    for prepare in ("select 1", "vacuum analyze docs"):
        connection.execute(prepare)
        _, checked, wrong, missing, _ = verified(connection, "'docs', 200")
        assert checked == 200 and 40 < wrong < 160 and missing == 0


def test_verification_of_partitions_and_with_long_texts_refused(connection):
    connection.execute(PARTITIONED)
    connection.execute("update docs set content = repeat('word ', 5000) where id = 150; set gte_small.on_truncate = 'silent'")
    connection.execute("call embed_backfill('docs')")
    connection.execute("set gte_small.on_truncate = 'error'")
    assert verified(connection)[1:4] == (400, 0, 0)
    assert one(connection, "show gte_small.on_truncate") == "error"
    connection.execute("set session_replication_role = replica; update docs set content = 'x' where id = 150; reset session_replication_role")
    assert verified(connection)[2:] == (1, 0, ["elsewhere.docs_2 " + one(connection, "select ctid::text from docs where id = 150")])
    refused(connection, "select * from embed_verify('docs', 0)", "22023")
    refused(connection, "select * from embed_verify('pg_class')", "42703")


# --- suggest_threshold ---


def test_too_few_rows_for_a_suggestion(connection):
    make(connection, 19)
    connection.execute("call embed_backfill('docs')")
    assert one(connection, "select suggest_threshold('docs')") is None
    connection.execute("insert into docs values (20, 'one more')")
    assert -1 <= one(connection, "select suggest_threshold('docs')") <= 1
    refused(connection, "select suggest_threshold('pg_class')", "42703")


def test_the_suggestion_ends_where_unrelated_pairs_end(connection):
    """Forty groups of vectors, each in its own direction: only pairs within a group are similar."""
    connection.execute(
        """create table docs (content text, embedding vector(384));
        insert into docs select 'x', (select array_agg(case when d = 1 + i % 40 then 1 when d = 100 + i then 0.3 else 0 end order by d)
          from generate_series(1, 384) d)::vector from generate_series(1, 80) i;
        select enable_semantic_search('docs', with_index => false)""")
    pairs = 80 * 79 / 2
    assert 40 / pairs > 0.01, "more than one pair of a hundred is alike"
    assert one(connection, "select suggest_threshold('docs')") > 0.8
    connection.execute("delete from docs where (embedding::real[])[100 + 1] < 2 and ctid in (select ctid from docs offset 50)")
    assert one(connection, "select suggest_threshold('docs')") < 0.2
