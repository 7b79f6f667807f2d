"""The numbers: what SQL `embed()` returns against PyTorch, on the real weights of all-MiniLM-L6-v2."""

import gzip
import json

import pytest

from conftest import CLONE
from measure import cosine, counting, embedding, max_abs, one

GOLDEN = CLONE / "tests" / "golden" / "minilm.jsonl"
SHARED = CLONE.parent / "shared" / "data" / "minilm-golden.jsonl.gz"


def records(path):
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line]


def assert_faithful(connection, references):
    """Cosine ≥ 0.999999 and max-abs ≤ 1e-5 for each text, and the model read the tokens the reference read.

    One failure lists every text that misses.
    """
    missed = []
    connection.execute("set gte_small.memo_size = 0")
    for reference in references:
        with counting(connection) as counted:
            computed = embedding(connection, reference["text"])
        apart, alike = max_abs(computed, reference["embedding"]), cosine(computed, reference["embedding"])
        tokens, truncated = min(reference["tokens"], 256), int(reference["tokens"] > 256)
        if alike < 0.999999 or apart > 1e-5 or (counted.tokens, counted.truncated_texts) != (tokens, truncated):
            missed.append(f"cosine {alike:.9f} max-abs {apart:.2e} tokens {counted.tokens}: {reference['text'][:60]!r}")
    connection.execute("reset gte_small.memo_size")
    assert not missed, "\n".join(missed)


def test_golden_texts(minilm):
    references = records(GOLDEN)
    assert len(references) >= 40
    assert all(min(reference["tokens"], 256) == len(reference["ids"]) for reference in references)
    assert_faithful(minilm, references)


@pytest.mark.skipif(not SHARED.exists(), reason="shared/data is not beside the clone")
def test_shared_texts(minilm):
    references = records(SHARED)
    assert len(references) == 61
    assert_faithful(minilm, references)


def test_single_equals_batch(minilm):
    """One-token and 250-token texts in one array: padding must not reach the numbers."""
    texts = ["cat", "dog " * 250, "", "rain", "the quick brown fox " * 60, "ok", "a b c d e f g h " * 30]
    with minilm.cursor(binary=True) as cursor:
        batch = cursor.execute(
            "select array_agg(v::real[]::text order by n) from unnest(embed(%s::text[])) with ordinality as e(v, n)",
            [texts],
        ).fetchone()[0]
    assert len(batch) == len(texts)
    for text, from_batch in zip(texts, batch):
        values = [float(value) for value in from_batch.strip("{}").split(",")]
        assert max_abs(values, embedding(minilm, text)) <= 1e-6, text[:20]


def test_embed_query_equals_embed(minilm):
    assert one(minilm, "select embed_query('how to boil an egg')::text = embed('how to boil an egg')::text")


def test_meaning(database):
    """The tutorial's table finds the sentence that means the same, in the words of another."""
    database.configure("gte_small.model_path", database.server.minilm)
    connection = database.connect()
    database.apply_embeddings_sql(connection)
    connection.execute(
        "insert into embeddings (content) values ('A man is eating pasta.'), ('The girl carries her baby.'), "
        "('A cheetah chases its prey across the field.'), ('Someone plays a violin on stage.')"
    )
    found = connection.execute(
        "select content from query_embeddings('a musician performs in front of an audience', 0.3) limit 3"
    ).fetchall()
    assert found[0] == ("Someone plays a violin on stage.",)
    assert connection.execute("select content from query_embeddings('a person has a meal', null, 1)").fetchall() == [
        ("A man is eating pasta.",)
    ]


def test_model_row_of_the_stand_in(minilm):
    name, fingerprint, dims, max_tokens, threshold = minilm.execute(
        "select name, fingerprint, dims, max_tokens, suggested_threshold from embed_model()"
    ).fetchone()
    assert (name, dims, max_tokens) == ("all-MiniLM-L6-v2", 384, 256)
    assert len(fingerprint) == 64 and int(fingerprint, 16) > 0
    assert 0.2 < threshold < 0.7
