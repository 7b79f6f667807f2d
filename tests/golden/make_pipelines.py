"""Makes pipelines.jsonl: vectors of sentence-transformers for a tiny model with several configurations.

    VENV=$(mktemp -d) && python3 -m venv $VENV
    $VENV/bin/pip install torch==2.15.0 transformers==5.23.0 sentence-transformers==6.2.0
    cargo run --profile fast -p gte-engine --example tiny-model -- $VENV/tiny
    $VENV/bin/python tests/golden/make_pipelines.py $VENV/tiny

The tiny model has the same bytes on every machine. The file is committed, so tests need no PyTorch; run this again only
after a change of the tiny model or of this script. `--check` compares instead of writing.

A line has the files that are added to the tiny model, a text, and its vectors as a query and as a document.
"""

import argparse
import json
import pathlib
import shutil
import tempfile

import torch
from sentence_transformers import SentenceTransformer

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE / "pipelines.jsonl"
TEXTS = ["a cat sat on the mat", "", "Red [MASK] stones: 日本 cafés \u2602", "base " + "the river sat in a database " * 5]


def modules(*names):
    places = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    return [{"idx": i, "name": str(i), "path": places[name], "type": f"sentence_transformers.models.{name}"}
            for i, name in enumerate(names)]


ALL = modules("Transformer", "Pooling", "Normalize")
OLDER_CLS = {"word_embedding_dimension": 384, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False,
             "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}
MEAN = {"word_embedding_dimension": 384, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
CLS = {"embedding_dimension": 384, "pooling_mode": "cls", "include_prompt": True}


def prompts(default=None, **named):
    return {"prompts": named, "default_prompt_name": default}


def files(modules, pooling, prompts=None, limit=None):
    made = {"modules.json": modules, "1_Pooling/config.json": pooling}
    if prompts is not None:
        made["config_sentence_transformers.json"] = prompts
    if limit is not None:
        made["sentence_bert_config.json"] = {"max_seq_length": limit, "do_lower_case": False}
    return made


def by_role(model, text):
    return model.encode_query(text, normalize_embeddings=True), model.encode_document(text, normalize_embeddings=True)


def with_passage(model, text):
    # encode_document() of this version has an empty prompt "document" and never comes to "passage".
    return (model.encode_query(text, normalize_embeddings=True),
            model.encode(text, prompt_name="passage", normalize_embeddings=True))


def without_roles(model, text):
    return (model.encode(text, normalize_embeddings=True),) * 2


CASES = [
    (files(ALL, MEAN), by_role),
    (files(ALL, OLDER_CLS), by_role),
    (files(modules("Transformer", "Pooling"), CLS, prompts(query="search: ")), by_role),
    (files(ALL, MEAN, prompts(query="search: ", document="the data: "), limit=16), by_role),
    (files(ALL, OLDER_CLS, prompts(query="un", document="data"), limit=16), by_role),
    (files(ALL, MEAN, prompts(query="search: ", passage="the data: ")), with_passage),
    (files(ALL, MEAN, prompts("clustering", clustering="blue stone ")), without_roles),
]


def rows(tiny):
    for case, (added, encode) in enumerate(CASES):
        with tempfile.TemporaryDirectory() as work:
            directory = pathlib.Path(work) / "model"
            shutil.copytree(tiny, directory)
            for name, value in added.items():
                path = directory / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(json.dumps(value))
            model = SentenceTransformer(str(directory), device="cpu")
            for text in TEXTS:
                query, document = ([float(f"{value:.7g}") for value in vector] for vector in encode(model, text))
                yield {"case": case, "files": added, "text": text, "query": query, "document": document}


def check(found):
    stored = [json.loads(line) for line in GOLDEN.read_text(encoding="ascii").splitlines()]
    assert len(stored) == len(found), "other cases"
    worst = 0.0
    for old, new in zip(stored, found):
        for role in ("query", "document"):
            worst = max([worst, *(abs(a - b) for a, b in zip(old.pop(role), new.pop(role)))])
        assert old == new, f"case {old['case']}: {old['text']!r} differs"
    assert worst <= 1e-6, f"a vector differs by {worst}"
    print(f"{len(found)} lines agree, vectors within {worst:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tiny", type=pathlib.Path)
    parser.add_argument("--check", action="store_true", help="compare with the stored file, write nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the same order of summation on every machine
    found = list(rows(options.tiny))
    if options.check:
        check(found)
        return
    GOLDEN.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in found), encoding="ascii")
    print(f"{GOLDEN.name}: {len(found)} lines, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
