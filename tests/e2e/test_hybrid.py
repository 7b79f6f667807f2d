"""hybrid_<table>: the fusion of words and meaning, on small hand-made tables and on real text."""

import json
import math

import pytest

import state
import xquad
from measure import counting, one


@pytest.fixture
def docs(connection):
    connection.execute("create table docs (id int primary key, body text); select enable_semantic_search('docs', '{body}', text_search => 'english')")
    connection.execute("insert into docs select i, 'row about nothing number ' || i from generate_series(1, 250) i")
    connection.execute("insert into docs values (1001, 'the error E4711 was seen'), (1002, 'It''s a back\\slash & O''Brien | !(:*)')")
    return connection


def found(connection, search, *more):
    return connection.execute(
        f"select (item).id, full_text_rank, semantic_rank, score from hybrid_docs(%s{', %s' * len(more)})", [search, *more]).fetchall()


def test_a_rare_word_finds_its_row(docs):
    # Besides it at most the nearest vector, which is arbitrary with random weights.
    first = {row[0]: row for row in found(docs, "what does the row about E4711 say?", 2)}
    assert first[1001][1] == 1
    assert [row[0] for row in found(docs, "what does the row about E4711 say?", 1, 1.0, 0.5)] == [1001]


def test_scores_are_reciprocal_ranks_weighed(docs):
    for row in found(docs, "error number 17", 20, 2.0, 0.5, 10):
        expected = (2.0 / (10 + row[1]) if row[1] else 0) + (0.5 / (10 + row[2]) if row[2] else 0)
        assert row[3] == pytest.approx(expected)
    scores = [row[3] for row in found(docs, "error number 17", 20, 2.0, 0.5, 10)]
    assert scores == sorted(scores, reverse=True) and len(scores) == 20


def test_what_most_rows_have_is_left_to_the_meaning(docs):
    """An arbitrary part of the 250 rows with these words must not come before the nearest row."""
    meaning = [row[0] for row in docs.execute("select id from query_docs('row number', null, 10)").fetchall()]
    for search in ["row", "row number"]:
        nearest = [row[0] for row in docs.execute("select id from query_docs(%s, null, 40)", [search]).fetchall()]
        assert {row[0] for row in found(docs, search)} <= set(nearest)
        assert all(row[2] for row in found(docs, search))
    assert len(meaning) == 10


def test_rows_with_the_same_words_are_in_the_order_of_meaning(docs):
    docs.execute("insert into docs select i, 'zebra ' || i from generate_series(2000, 2020) i")
    by_words = [row[0] for row in found(docs, "zebra", 21, 1.0, 0.0) if row[3] > 0]
    distances = [one(docs, "select embedding <#> embed_query('zebra') from docs where id = %s", [i]) for i in by_words]
    assert len(by_words) == 21 and distances == sorted(distances)


@pytest.mark.parametrize("search", ["O'Brien", "back\\slash", "''", "a & | ! ( ) : * <-> \\", "E'\\\\x'", "!!! ???", "das ist ß", "x" * 3000])
def test_any_search_string_is_taken(docs, search):
    assert len(found(docs, search, 3)) == 3


def test_arguments_at_their_edges(docs):
    assert len(found(docs, "cat")) == 10
    assert len(found(docs, "cat", None)) == 10
    assert found(docs, "cat", 0) == []
    assert len(found(docs, "row", 2147483647)) >= 40
    assert len(found(docs, "cat", 5, None, None, None)) == 5
    assert len(found(docs, "cat", 5, 1.0, 1.0, -100)) == 5
    assert found(docs, None) == []


def test_the_model_runs_once(docs):
    docs.execute("set gte_small.memo_size = 0")
    with counting(docs) as counted:
        found(docs, "error E4711")
    assert counted.model_runs == 1


def test_both_indexes_serve_it(docs):
    docs.execute("drop index docs_embedding_idx; insert into docs (id, body, embedding) select i, 'w' || i || ' v' || i % 1000, "
                 "l2_normalize((select array_agg(random() - 0.5 + 0 * (i + place)) from generate_series(1, 384) place)::vector(384)) "
                 "from generate_series(10000, 15000) i; select enable_semantic_search('docs', '{body}'); analyze docs; set jit = off")
    with docs.transaction():
        docs.execute("select * from hybrid_docs('w10007 E4711')")
        scans = {name: one(docs, "select pg_stat_get_xact_numscans(%s::regclass)", [name]) for name in ("docs", "docs_words_idx", "docs_embedding_idx")}
    assert scans["docs"] == 0 and scans["docs_words_idx"] > 1 and scans["docs_embedding_idx"] == 1, scans


def test_partitions_and_rows_without_embedding_or_text(connection):
    connection.execute("create table docs (id int, body text) partition by range (id); create table docs_1 partition of docs for values from (0) to (10); "
                       "create table docs_2 partition of docs for values from (10) to (20); select enable_semantic_search('docs', '{body}')")
    connection.execute("insert into docs values (1, 'a cat'), (11, 'a dog'), (12, null); set gte_small.own_vectors = on; update docs set embedding = null where id = 1")
    assert {row[0]: row[1:3] for row in found(connection, "cat")} == {1: (1, None), 11: (None, 1)}


def test_a_document_beyond_the_limits_of_full_text_is_stored(connection):
    connection.execute("create table docs (id int, body text); select enable_semantic_search('docs', '{body}')")
    connection.execute("insert into docs select 1, string_agg(md5(i::text), ' ') from generate_series(1, 100000) i")
    connection.execute("insert into docs select 2, string_agg(chr(66560 + i % 40) || chr(66560 + i / 40 % 40) || '-' || chr(66560 + i / 1600), ' ') from generate_series(1, 60000) i")
    assert found(connection, one(connection, "select md5('7')"))[0][:2] == (1, 1)


def test_hybrid_on_xquad(minilm_database, minilm):
    """nDCG@10 is at least that of the better half of the search minus 0.005, on questions that nothing was tuned on."""
    try:
        directory = xquad.data_directory()
    except state.Failure as missing:
        pytest.skip(str(missing))
    # Each question is searched three times.
    minilm.execute("set gte_small.memo_size = 2000")
    passages, questions = xquad.texts(directory / "corpus.jsonl"), xquad.texts(directory / "queries.jsonl")
    relevant = xquad.relevant(directory / "qrels.tsv")
    minilm.execute("create table xquad (id text primary key, content text); select enable_semantic_search('xquad', text_search => 'english')")
    with minilm.cursor() as cursor:
        cursor.executemany("insert into xquad values (%s, %s)", list(passages.items()))

    def quality(full_text_weight, semantic_weight):
        gains = []
        for question in list(questions)[1::2]:
            ids = [row[0] for row in minilm.execute(
                "select (item).id from hybrid_xquad(%s, 10, %s, %s) where score > 0", [questions[question], full_text_weight, semantic_weight])]
            gains.append(sum(1 / math.log2(place + 2) for place, row in enumerate(ids) if row in relevant[question]))
        return sum(gains) / len(gains)

    assert len(questions) == 1190
    fused, words, meaning = quality(1.0, 1.0), quality(1.0, 0.0), quality(0.0, 1.0)
    minilm.execute("reset gte_small.memo_size")
    print(f"nDCG@10: hybrid {fused:.4f}, words {words:.4f}, meaning {meaning:.4f}")
    assert meaning > 0.9 and words > 0.9
    assert fused >= max(words, meaning) - 0.005
