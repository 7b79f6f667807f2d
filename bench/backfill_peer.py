"""The Python side of `make bench-backfill`: reads rows without an embedding, embeds them with ONNX Runtime, writes them.

    backfill_peer.py DSN GRAPH TOKENIZER SHARE OF THREADS

It prints one line of JSON when it is ready, starts when it reads a line, and prints one line when it is done. It works
as a careful program does: keyset reads of 512 rows, a fast tokenizer, groups sorted by length for little padding, the
group size that is fastest on this machine (tried before the time is taken), one UPDATE for all vectors of a read. If
several processes run, SHARE OF selects the ids of this one. It needs numpy, onnxruntime, psycopg and tokenizers.
"""

import json
import sys
import time
from pathlib import Path

import psycopg
from tokenizers import Tokenizer

from peers_onnx import Runner

ROWS = 512
GROUPS = (1, 2, 4, 8, 16, 32)
READ = "select id, content from docs where embedding is null and id > %s and id %% %s = %s order by id limit %s"
WRITE = "update docs set embedding = v.e::vector from unnest(%s::int[], %s::text[]) as v (id, e) where docs.id = v.id"


class Embedder:
    def __init__(self, graph: Path, tokenizer: Path, max_tokens: int, threads: int):
        self.runner, self.threads, self.group = Runner(graph), threads, 1
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_tokens)

    def embed(self, texts):
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        session, vectors = self.runner.session(self.threads), []
        for inputs in self.runner.groups([ids[i] for i in order], self.group):
            vectors.extend(session.run(None, inputs)[0])
        return [vector for _, vector in sorted(zip(order, vectors), key=lambda pair: pair[0])]

    def choose_group(self, texts) -> dict:
        took = {}
        for self.group in GROUPS:
            self.embed(texts[:16])
            began = time.perf_counter()
            self.embed(texts)
            took[self.group] = round(time.perf_counter() - began, 3)
        self.group = min(took, key=took.get)
        return took


def main(dsn, graph, tokenizer, share, of, threads) -> None:
    limit = json.loads((Path(tokenizer).parent / "sentence_bert_config.json").read_text(encoding="utf-8"))["max_seq_length"]
    embedder = Embedder(Path(graph), Path(tokenizer), limit, int(threads))
    with psycopg.connect(dsn, autocommit=True) as connection:
        sample = [text for (text,) in connection.execute("select content from docs order by id limit 256")]
        print(json.dumps({"tried": embedder.choose_group(sample), "group": embedder.group}), flush=True)
        sys.stdin.readline()
        last, rows = 0, 0
        while read := connection.execute(READ, [last, int(of), int(share), ROWS]).fetchall():
            vectors = embedder.embed([content for _, content in read])
            literals = ["[" + ",".join(map(repr, vector.tolist())) + "]" for vector in vectors]
            connection.execute(WRITE, [[number for number, _ in read], literals])
            last, rows = read[-1][0], rows + len(read)
        print(json.dumps({"rows": rows}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
