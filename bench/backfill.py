"""`make bench-backfill`: compares embed_backfill() with Python + ONNX Runtime that read, embed and write the same table.

It uses a throw-away server with MiniLM and 20,000 shuffled rows of medical abstracts and Banking77 (from shared/data
beside the clone, else invented texts). Each contender gets a new copy of the table with the trigger: without and with an
HNSW index, with one and with two sessions, one thread each. The contenders run in turn. A figure is the best of the
rounds, because other work of the machine only slows them down. Models are loaded before the time is taken. Results are
written to target/bench/backfill.json and backfill.svg.

    bench/backfill.py [--rows 20000] [--rounds 1] [--sessions 1,2] [--index without,with]
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import scripts_path  # noqa: F401

import bars
import model
import peers
import postgres
import state
import throwaway
from session import Session
from state import CLONE, SHARED, Failure, say

PEER = CLONE / "bench" / "backfill_peer.py"
# tokenizers without its dependencies, which serve downloads from a hub only.
TOKENIZERS = "tokenizers==0.22.1"
WHEELS = {
    "linux-x86_64": ("manylinux_2_17_x86_64", "e2ef6063d7a84994129732b47e7915e8710f27f99f3a3260b8a38fc7ccd083f4"),
    "linux-aarch64": ("manylinux_2_17_aarch64", "19d2962dd28bc67c1f205ab180578a78eef89ac60ca7ef7cbe9635a46a56422a"),
    "macos-arm64": ("macosx_11_0_arm64", "8d4e484f7b0827021ac5f9f71d4794aaef62b979ab7608593da22b1d2e3c4edc"),
}
OURS, THEIRS = "embed_backfill()", "Python + ONNX Runtime"


def shared(file: str, column: str) -> list:
    path = SHARED / file
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as lines:
        return [row[column].strip() for row in csv.DictReader(lines)]


def texts(count: int) -> list:
    """Different texts, the same in every run. If there are too few, the ends of abstracts are added."""
    abstracts = shared("medical/medical_tc_test.csv", "medical_abstract")
    short = shared("banking77/train.csv", "text") + shared("banking77/test.csv", "text")
    ends = [text.partition(". ")[2] for text in abstracts]
    found = list(dict.fromkeys(text for text in [*abstracts, *short, *ends] if text))
    chance = random.Random(77)
    words = [f"{a}{b}" for a in ("ca", "re", "mo", "ti", "su", "pla") for b in ("ter", "ness", "ment", "ling", "rium", "ce")]
    if not abstracts or not short:
        say("shared/data is not beside the clone: the texts are made up")
    while len(found) < count:
        found.append(" ".join(chance.choices(words, k=chance.choice((8, 12, 16, 200)))) + f" {len(found)}")
    chance.shuffle(found)
    return found[:count]


def peer_environment() -> dict:
    if state.machine() not in WHEELS:
        raise Failure(f"there is no pinned tokenizer for {state.machine()}, so Python has nothing to compete with")
    tag, digest = WHEELS[state.machine()]
    tokenizers = state.wheel(TOKENIZERS, digest, state.directory("python") / "tokenizers", python_version="3.11", platform=tag)
    packages = state.python_packages([*peers.PACKAGES, postgres.PSYCOPG])
    return {**state.environment(), "PYTHONPATH": os.pathsep.join(map(str, (packages, tokenizers))),
            "PYTHONDONTWRITEBYTECODE": "1", "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}


class Bench:
    def __init__(self, cluster, graph: Path, environment: dict):
        self.cluster, self.graph, self.environment = cluster, graph, environment

    def fresh_table(self, indexed: bool) -> None:
        self.cluster.psql(
            "set client_min_messages = warning; drop table if exists docs cascade; "
            "create table docs (id int primary key, content text not null, embedding vector(384)); "
            "insert into docs select * from source order by id; "
            f"select enable_semantic_search('docs', with_index => {indexed});")
        self.cluster.psql("vacuum analyze docs;")
        self.cluster.psql("checkpoint;")

    def ours(self, sessions: int) -> float:
        there = [Session(self.cluster, "postgres") for _ in range(sessions)]
        try:
            for session in there:
                session.run("set client_min_messages = warning; set gte_small.threads = 1; set gte_small.memo_size = 0; select embed('load');")
            workers = [threading.Thread(target=session.run, args=("call embed_backfill('docs');",)) for session in there]
            began = time.perf_counter()
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            return time.perf_counter() - began
        finally:
            for session in there:
                session.__exit__()

    def theirs(self, sessions: int) -> float:
        command = [sys.executable, PEER, self.cluster.dsn(dbname="postgres", user="postgres"), self.graph,
                   model.minilm() / "tokenizer.json"]
        there = []
        try:
            for share in range(sessions):
                arguments = [str(part) for part in [*command, share, sessions, 1]]
                there.append(subprocess.Popen(arguments, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                              encoding="utf-8"))
                # One after the other, so that each tries its group sizes on an idle machine.
                ready = there[-1].stdout.readline()
                if not ready:
                    raise Failure("the Python contender ended; what it says above names the cause")
                about = json.loads(ready)
            say(f"    group sizes tried, seconds for 256 texts: {about['tried']}; {about['group']} taken")
            began = time.perf_counter()
            for process in there:
                process.stdin.write("go\n")
                process.stdin.flush()
            if not all(process.stdout.readline() for process in there):
                raise Failure("the Python contender ended; what it says above names the cause")
            return time.perf_counter() - began
        finally:
            for process in there:
                process.kill()
                process.communicate()

    def check(self, who: str) -> None:
        """Fails if a contender left rows out or wrote wrong vectors."""
        with Session(self.cluster, "postgres") as session:
            missing = session.value("select count(*) from docs where embedding is null")
            wrong = session.value("select wrong from embed_verify('docs', 300)")
        if missing != "0" or wrong != "0":
            raise Failure(f"{who} left {missing} rows without an embedding, and {wrong} of 300 are wrong")


def load(cluster, rows: list) -> None:
    cluster.psql('create table source (id int, content text, embedding vector(384));')
    for first in range(0, len(rows), 1000):
        values = ",\n".join(f"({number}, {postgres.quote_literal(text)})"
                            for number, text in enumerate(rows[first:first + 1000], first + 1))
        cluster.psql(f"insert into source (id, content) values {values};")


def race(bench: Bench, options) -> list:
    found = {}
    for round_number in range(options.rounds):
        for index in options.index:
            for sessions in options.sessions:
                for who, run in ((OURS, bench.ours), (THEIRS, bench.theirs)):
                    bench.fresh_table(index == "with")
                    load_before = os.getloadavg()[0]
                    seconds = run(sessions)
                    bench.check(who)
                    found.setdefault((index, sessions, who), []).append(seconds)
                    say(f"  round {round_number + 1}, {index} index, {sessions} session{'s' * (sessions > 1)}, {who}: "
                        f"{seconds:.1f} s, load {load_before:.1f} before")
    return [{"index": index, "sessions": sessions, "who": who, "rows": options.rows, "seconds": times,
             "rows_per_s": options.rows / min(times), "cpu": peers.cpu()} for (index, sessions, who), times in found.items()]


def table(found: list) -> None:
    rates = {(entry["index"], entry["sessions"], entry["who"]): entry["rows_per_s"] for entry in found}
    print(f"\n{'rows/s':<28}{OURS:>18}{THEIRS:>24}{'ratio':>8}{'2 sessions : 1':>17}")
    for (index, sessions, who), rate in rates.items():
        if who == OURS:
            other = rates[index, sessions, THEIRS]
            one = rates.get((index, 1, OURS))
            scaling = f"{rate / one:.2f}" if one and sessions == 2 else ""
            print(f"{f'{index} HNSW index, {sessions} session{chr(115) * (sessions > 1)}':<28}{rate:>18.0f}{other:>24.0f}"
                  f"{rate / other:>8.2f}{scaling:>17}", flush=True)


def plot(found: list) -> str:
    panels = []
    for index in dict.fromkeys(entry["index"] for entry in found):
        rows = [(f"{entry['who']}, {entry['sessions']} session{'s' * (entry['sessions'] > 1)}", entry["rows_per_s"], int(entry["who"] != OURS))
                for entry in found if entry["index"] == index]
        panels.append((f"{index} HNSW index", "rows/s", rows))
    return bars.svg(f"{found[0]['rows']} rows: read, embed and write", panels, found[0]["cpu"])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sessions", default="1,2")
    parser.add_argument("--index", default="without,with")
    options = parser.parse_args()
    options.sessions = [int(sessions) for sessions in options.sessions.split(",")]
    options.index = options.index.split(",")
    return options


def main() -> int:
    options = arguments()
    environment = peer_environment()
    with throwaway.measured("bench-backfill", shared_buffers="512MB", maintenance_work_mem="512MB") as (cluster, work):
        graphs = work / "graphs"
        built = subprocess.run([sys.executable, str(peers.PEERS_ONNX), "build", str(model.minilm()), str(graphs)],
                               env=environment, stderr=subprocess.PIPE, encoding="utf-8")
        if built.returncode != 0:
            raise Failure(f"the ONNX graph could not be built:\n{built.stderr.strip()}")
        load(cluster, texts(options.rows))
        with Session(cluster, "postgres") as session:
            say(f"{peers.cpu()}; {session.value('select kernels from embed_model()')}; {options.rows} rows")
        found = race(Bench(cluster, graphs / "fp32.onnx", environment), options)
    peers.RESULTS.mkdir(parents=True, exist_ok=True)
    (peers.RESULTS / "backfill.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (peers.RESULTS / "backfill.svg").write_text(plot(found), encoding="utf-8")
    table(found)
    say(f"{peers.RESULTS / 'backfill.json'}, {peers.RESULTS / 'backfill.svg'}")
    return 0


if __name__ == "__main__":
    state.verb(main)
