"""Hybrid search under row-level security, and words that only the split text has."""

import pytest

from measure import one

WORDS = [("1042", "The pump reports ERR-1042 at night"), ("config", "Edit config.json by hand"), ("TCP", "About TCP/IP networks"),
         ("cafe", "Le café du coin"), ("file_name", "Write <file_name> here"), ("売上", "四半期の売上報告です"), ("東京", "東京タワーへ行く")]
# Texts that look like those above and have none of the words.
LOOK_ALIKES = 1500


@pytest.fixture(scope="module")
def docs(server):
    database = server.create_database()
    connection = database.connect()
    connection.execute("create table docs (id int primary key, body text, owner text, embedding vector(384)); "
                       "select enable_semantic_search('docs', 'body', text_search => 'english')")
    connection.execute("insert into docs select i, 'The pump reports ERR-' || 20000 + i || ' at night; edit setup.yaml, about UDP/X25 networks', 'gte_plain', "
                       "(select l2_normalize(array_agg(random() - 0.5 + 0 * (i + n))::vector(384)) from generate_series(1, 384) n) "
                       f"from generate_series(1, {LOOK_ALIKES}) i")
    for place, (_, text) in enumerate(WORDS):
        connection.execute("insert into docs (id, body, owner) values (%s, %s, 'gte_reader')", [10000 + place, text])
    connection.execute("analyze docs; grant select on docs to gte_reader, gte_plain")
    yield database
    database.drop()


@pytest.mark.parametrize("place", range(len(WORDS)))
def test_each_word_is_found_first_among_look_alikes(docs, place):
    connection = docs.connect()
    # Meaning is arbitrary with random weights: only the words count here.
    assert connection.execute("select (item).id, full_text_rank from hybrid_docs(%s, 1, 1, 0)", [WORDS[place][0]]).fetchone() == (10000 + place, 1)
    connection.close()


def scans(connection, search):
    with connection.transaction():
        connection.execute("select * from hybrid_docs(%s)", [search])
        return {name: one(connection, "select pg_stat_get_xact_numscans(%s::regclass)", [name]) for name in ("docs", "docs_words_idx")}


MANY = "pump reports night edit setup yaml udp networks 1042 json tokyo " + " ".join(f"word{i}" for i in range(30))


def test_under_a_policy_words_are_looked_up_in_the_index(docs):
    owner, reader = docs.connect(), docs.connect("gte_reader")
    owner.execute("alter table docs enable row level security; create policy own on docs for select using (owner = current_user)")
    try:
        # Few rows are visible: they alone are looked at, none by a scan for each word. They are found by scans of the table.
        reader.execute("set enable_seqscan = off")
        assert reader.execute("select (item).id from hybrid_docs('1042', 1, 1, 0)").fetchall() == [(10000,)]
        assert scans(reader, MANY)["docs"] <= 2
        plain = docs.connect("gte_plain")
        plain.execute("set enable_seqscan = off")
        seen = scans(plain, MANY)
        assert seen["docs_words_idx"] >= 30 and seen["docs"] == 0, seen
        assert {row[0] for row in plain.execute("select (item).owner from hybrid_docs('1042 pump', 50)").fetchall()} == {"gte_plain"}
        plain.close()
    finally:
        owner.execute("drop policy own on docs; alter table docs disable row level security")
        reader.close()
        owner.close()


def test_without_the_index_there_is_one_scan_for_all_words(docs):
    connection = docs.connect()
    with connection.transaction(force_rollback=True):
        connection.execute("drop index docs_words_idx")
        before = one(connection, "select pg_stat_get_xact_numscans('docs'::regclass)")
        assert connection.execute("select (item).id from hybrid_docs('1042', 1, 1, 0)").fetchone() == (10000,)
        connection.execute("select * from hybrid_docs(%s)", [MANY])
        # Two searches, each with at most one scan for the words and one for the vectors.
        assert one(connection, "select pg_stat_get_xact_numscans('docs'::regclass)") - before <= 4
    connection.close()
