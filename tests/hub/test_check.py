"""gte-model check: its measurements, and its failure for a wrong number."""

import json
import math
import re
import subprocess

import model
import pytest
from conftest import CLONE

GOLDEN = CLONE / "tests" / "golden" / "minilm.jsonl"
PUBLISHED_VECTORS = CLONE.parent / "shared" / "data" / "gte-golden.json"


def cosine(one, other):
    dot = sum(a * b for a, b in zip(one, other))
    return dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


@pytest.fixture(scope="module")
def minilm():
    return model.minilm()


@pytest.fixture
def check(tool):
    def run(directory, *options):
        return subprocess.run([tool, "check", directory, *options], capture_output=True, text=True, timeout=300)
    return run


@pytest.fixture
def described(minilm, tmp_path):
    """A manifest of MiniLM with PyTorch's cosines of three golden texts. The first cosine has this `error`."""
    lines = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    short = [line for line in lines if 5 < line["tokens"] < 60][:3]
    weights = model.state.sha256(minilm / "model.safetensors")

    def write(error=0.0, sha256=weights):
        pairs = [(short[0], short[1]), (short[0], short[2]), (short[1], short[2])]
        cosines = [{"texts": [a["text"], b["text"]], "cosine": cosine(a["embedding"], b["embedding"])}
                   for a, b in pairs]
        cosines[0]["cosine"] += error
        path = tmp_path / "minilm.json"
        path.write_text(json.dumps({
            "repo": "acme/minilm", "revision": "main", "cosines": cosines,
            "files": [{"name": "model.safetensors", "size": 1, "sha256": sha256}]}))
        return path

    return write


def test_a_right_model_passes(check, minilm):
    done = check(minilm)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert len(rows) == 5 and all(row.endswith(" ok") for row in rows)
    assert done.stdout.startswith("all-MiniLM-L6-v2: 6 layers, 256 tokens")
    assert "no published values" in done.stdout.splitlines()[0]


def test_published_cosines_are_compared(check, minilm, described):
    done = check(minilm, "--manifest", described())
    assert done.returncode == 0, done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith("  cosine of")]
    assert len(rows) == 3 and all(row.endswith(" ok") for row in rows)


@pytest.mark.parametrize("error", [3e-5, -3e-5])
def test_a_cosine_that_is_off_fails(check, minilm, described, error):
    done = check(minilm, "--manifest", described(error))
    assert done.returncode == 1
    assert len(re.findall(r"WRONG$", done.stdout, re.MULTILINE)) == 1
    assert "1 of 8 checks failed" in done.stdout


def test_another_models_cosines_are_not_asked_for(check, minilm, described):
    done = check(minilm, "--manifest", described(0.5, sha256="0" * 64))
    assert done.returncode == 0 and "cosine of" not in done.stdout


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_half_a_model_is_named(check, minilm, tmp_path, missing):
    for name in model.MINILM_FILES:
        if name != missing:
            (tmp_path / name).symlink_to(minilm / name)
    done = check(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the model in ") and missing in done.stderr


def test_gte_smalls_manifest_names_the_weights_the_engine_knows():
    manifest = json.loads(model.MANIFEST.read_text(encoding="utf-8"))
    known = (CLONE / "engine" / "src" / "model" / "known.rs").read_text(encoding="utf-8")
    weights, = (f["sha256"] for f in manifest["files"] if f["name"] == "model.safetensors")
    assert re.search(rf'GTE_SMALL_WEIGHTS_SHA256: &str =\s+"{weights}"', known)
    # Without the other optional files a model has mean pooling and no prompts, as gte-small.
    assert {f["name"] for f in manifest["files"]} == {*model.REQUIRED, "sentence_bert_config.json"}
    assert len(manifest["cosines"]) == 3


@pytest.mark.skipif(not PUBLISHED_VECTORS.exists(), reason="shared/data is not beside the clone")
def test_gte_smalls_cosines_are_those_of_the_published_vectors():
    items = json.loads(PUBLISHED_VECTORS.read_text(encoding="utf-8"))["items"]
    vectors = {item["text"]: item["embedding"] for item in items}
    for expected in json.loads(model.MANIFEST.read_text(encoding="utf-8"))["cosines"]:
        one, other = (vectors[text] for text in expected["texts"])
        assert abs(cosine(one, other) - expected["cosine"]) < 1e-5


@pytest.mark.skipif(not (model.STATE / "models" / "gte-small").is_dir(), reason="gte-small has not been fetched")
def test_gte_small_gives_its_published_cosines(check):
    done = check(model.STATE / "models" / "gte-small")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("cosine of") == 3
