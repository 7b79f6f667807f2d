"""The numbers: what SQL `embed()` returns against PyTorch, on the real weights of all-MiniLM-L6-v2."""

import gzip
import json
from pathlib import Path

import psycopg
import pytest

from conftest import CLONE
from measure import cosine, counting, embedding, max_abs, one

GOLDEN = CLONE / "tests" / "golden" / "minilm.jsonl"
SHARED = CLONE.parent / "shared" / "data" / "minilm-golden.jsonl.gz"


def records(path):
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line]


# The test forces every tier of this CPU; every CPU has the first two. If the system does not report the features of the
# CPU, the server is asked.
FEATURES = {"avx2-f32": "avx2", "avx512-f32": "avx512bw", "avx512-bf16": "avx512_bf16", "amx-bf16": "amx_bf16"}
CPU = Path("/proc/cpuinfo").read_text(encoding="utf-8").split() if Path("/proc/cpuinfo").exists() else FEATURES.values()
KERNELS = ["", "portable-f32", *(name for name, feature in FEATURES.items() if feature in CPU)]


@pytest.fixture(params=KERNELS, ids=lambda name: name or "f32")
def precise(request, minilm):
    """A connection with kernels by name, or with the fastest in f32, and their bounds: (connection, cosine, max-abs)."""
    minilm.execute(f"set gte_small.kernels = '{request.param}'")
    minilm.execute(f"set gte_small.precision = '{'bf16' if request.param.endswith('bf16') else 'f32'}'")
    try:
        used = one(minilm, "select kernels from embed_model()")
    except psycopg.errors.FeatureNotSupported as error:
        assert request.param not in KERNELS[:2], error
        pytest.skip(f"this CPU has no {request.param}")
    assert used == (request.param or used)
    return (minilm, 0.9999, 5e-3) if used.endswith("bf16") else (minilm, 0.999999, 2e-6)


def assert_faithful(precise, references):
    """Cosine and max-abs are within the bounds of the tier, and the number of tokens is that of the reference.

    A failure lists all texts that differ.
    """
    connection, least_cosine, most_apart = precise
    missed = []
    for reference in references:
        with counting(connection) as counted:
            computed = embedding(connection, reference["text"])
        apart, alike = max_abs(computed, reference["embedding"]), cosine(computed, reference["embedding"])
        tokens, truncated = min(reference["tokens"], 256), int(reference["tokens"] > 256)
        if alike < least_cosine or apart > most_apart or (counted.tokens, counted.truncated_texts) != (tokens, truncated):
            missed.append(f"cosine {alike:.9f} max-abs {apart:.2e} tokens {counted.tokens}: {reference['text'][:60]!r}")
    assert not missed, "\n".join(missed)


def test_golden_texts(precise):
    references = records(GOLDEN)
    assert len(references) >= 40
    assert all(min(reference["tokens"], 256) == len(reference["ids"]) for reference in references)
    assert_faithful(precise, references)


@pytest.mark.skipif(not SHARED.exists(), reason="shared/data is not beside the clone")
def test_shared_texts(precise):
    references = records(SHARED)
    assert len(references) == 61
    assert_faithful(precise, references)


def test_the_default_precision_is_faithful(minilm):
    assert_faithful((minilm, 0.9999, 5e-3), records(GOLDEN))


def test_the_same_bits_alone_in_any_batch_and_with_any_threads(precise):
    connection = precise[0]
    texts = ["cat", "dog " * 250, "", "rain", "the quick brown fox " * 60, "ok", "a b c d e f g h " * 30]
    texts += [f"sentence number {n} of a longer batch" for n in range(40)]
    connection.execute("set gte_small.threads = 1")
    alone = [one(connection, "select embed(%s::text)::text", [text]) for text in texts]
    for threads in (1, 2, 3, 0):
        connection.execute(f"set gte_small.threads = {threads}")
        assert [one(connection, "select embed(%s::text)::text", [text]) for text in texts[:7]] == alone[:7], threads
        for batch in (texts, texts[::-1], texts[3:9]):
            found = one(connection, "select array_agg(e::text order by n) from unnest(embed(%s::text[])) with ordinality as u(e, n)", [batch])
            assert found == [alone[texts.index(text)] for text in batch], threads


def test_embed_query_equals_embed(minilm):
    assert one(minilm, "select embed_query('how to boil an egg')::text = embed('how to boil an egg')::text")


def test_meaning(database):
    """A search in the tutorial's table finds the sentence with the same meaning and other words."""
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
