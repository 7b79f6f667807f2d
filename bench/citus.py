"""`make bench-citus PG_CONFIG=…`: what the distribution of a table by Citus costs and gains.

It needs a PostgreSQL of yours in which Citus, pgvector and gte-small are installed, and makes a private coordinator and
three workers on this machine, with MiniLM. The texts are those of `make run`. Two parts:

    fill      COPY of four times the texts, and embed_backfill() of the same rows, with one, two and three workers that
              have shards
    search    search_docs() of ten rows among the texts, in tables of several shard counts, on two workers

Both compare with a local table on the coordinator, which one session with one thread fills. All contenders run in turn,
in rounds. A rate is the best of the rounds, because other work of the machine only slows them down; the time of a search
is a median. Ratios are to one worker. Each session has one thread: run it on an idle machine, because many sessions get
more of a busy one than one session. Results are written to target/bench/citus.json and citus.svg.

    bench/citus.py [--rounds 3] [--searches 40] [--workers 1,2,3] [--shards 4,32]
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time

import scripts_path  # noqa: F401

import bars
import citus_nodes
import corpus
import model
import peers
import postgres
import pytests
import state
from state import say

# Four for each of three workers, which embed_backfill() fills at the same time.
SHARDS = 12
TIMES = 4
LOCAL = "local table"


class Bench:
    def __init__(self, nodes: citus_nodes.Nodes, connection):
        self.nodes, self.connection = nodes, connection
        self.run("set client_min_messages = warning")
        for node in nodes.all:
            with node.connect() as there:
                there.execute("alter system set gte_small.threads = 1")
                there.execute("alter system set gte_small.memo_size = 0")
                there.execute("select pg_reload_conf()")
        self.run(corpus.WANTED)
        self.texts = [row[0] for row in self.run("select content from wanted order by n")]

    def run(self, statement: str, *values):
        return self.connection.execute(statement, values or None)

    def create(self, name: str, shards: int, workers: int, with_index: bool) -> None:
        """A table on the first workers; without shards it stays on the coordinator."""
        for number, worker in enumerate(self.nodes.workers):
            self.run("select citus_set_node_property('127.0.0.1', %s, 'shouldhaveshards', %s)", worker.port, number < workers)
        self.run(f"drop table if exists {name} cascade")
        self.run(f"create table {name} (tenant int, id int, content text, primary key (tenant, id))")
        if shards:
            self.run(f"select create_distributed_table('{name}', 'tenant', shard_count => {shards}, colocate_with => 'none')")
        self.run(f"select enable_semantic_search('{name}', with_index => {with_index})")

    def copy(self, name: str, texts: list) -> float:
        began = time.perf_counter()
        with self.connection.cursor().copy(f"copy {name} (tenant, id, content) from stdin") as copy:
            for number, text in enumerate(texts):
                copy.write_row((number, number, text))
        return time.perf_counter() - began

    def backfill(self, name: str, texts: list) -> float:
        self.run(f"truncate {name}")
        self.run("set citus.propagate_set_commands = 'local'")
        self.run("begin")
        self.run("set local gte_small.defer = on")
        self.copy(name, texts)
        self.run("commit")
        began = time.perf_counter()
        self.run(f"call embed_backfill('{name}')")
        return time.perf_counter() - began

    def check(self, name: str, texts: list) -> None:
        rows, missing = self.run(f"select count(*), count(*) filter (where embedding is null) from {name}").fetchone()
        if (rows, missing) != (len(texts), 0):
            raise state.Failure(f"{name} has {rows} rows instead of {len(texts)}, {missing} of them without an embedding")


def workers_name(workers: int) -> str:
    return f"{workers} worker{'s' * (workers > 1)}" if workers else LOCAL


def fill(bench: Bench, options) -> list:
    """Rows a second of COPY and of embed_backfill()."""
    seconds = {}
    texts = [*bench.texts, *(f"{text} {number}" for number in range(1, TIMES) for text in bench.texts)]
    for round_number in range(options.rounds):
        for workers in (0, *options.workers):
            bench.create("filled", SHARDS if workers else 0, workers, with_index=False)
            for what, run in (("COPY", bench.copy), ("embed_backfill()", bench.backfill)):
                load = os.getloadavg()[0]
                took = run("filled", texts)
                bench.check("filled", texts)
                seconds.setdefault((what, workers), []).append(took)
                say(f"  round {round_number + 1}, {workers_name(workers)}, {what}: {took:.1f} s, load {load:.1f} before")
    bench.run("drop table filled cascade")
    return [{"part": "fill", "what": what, "workers": workers, "shards": SHARDS if workers else 0, "rows": len(texts), "seconds": took,
             "rows_per_s": len(texts) / min(took), "cpu": peers.cpu()} for (what, workers), took in seconds.items()]


def search(bench: Bench, options) -> list:
    """Milliseconds of a search of ten rows, the model's run included."""
    tables = {0: "searched_here", **{shards: f"searched_{shards}" for shards in options.shards}}
    for shards, name in tables.items():
        bench.create(name, shards, 2, with_index=True)
        bench.copy(name, bench.texts)
        bench.run(f"analyze {name}")
    step = max(1, len(bench.texts) // options.searches)
    questions = [text.partition(" (")[0] for text in bench.texts[::step]][:options.searches]
    taken = {shards: [] for shards in tables}
    for round_number in range(1 + options.rounds):
        for question in questions:
            for shards, name in tables.items():
                began = time.perf_counter()
                found = bench.run(f"select id from search_{name}(%s, 10)", question).fetchall()
                # The first round only loads the model and opens the connections to the workers.
                if round_number:
                    taken[shards].append(1000 * (time.perf_counter() - began))
                if len(found) != 10:
                    raise state.Failure(f"a search of {name} found {len(found)} rows instead of 10")
    return [{"part": "search", "shards": shards, "workers": 2 if shards else 0, "rows": len(bench.texts), "ms": statistics.median(ms),
             "tenth_ms": statistics.quantiles(ms, n=10)[0], "ninth_tenth_ms": statistics.quantiles(ms, n=10)[-1], "searches": len(ms),
             "cpu": peers.cpu()} for shards, ms in taken.items()]


def shards_name(shards: int) -> str:
    return f"{shards} shards" if shards else LOCAL


def tables(found: list) -> None:
    filled = [entry for entry in found if entry["part"] == "fill"]
    rates = {(entry["what"], entry["workers"]): entry["rows_per_s"] for entry in filled}
    base = min(entry["workers"] for entry in filled if entry["workers"])
    print(f"\n{filled[0]['rows']} rows\n{'rows/s':<20}{'COPY':>8}{'ratio':>8}{'embed_backfill()':>20}{'ratio':>8}")
    for workers in dict.fromkeys(entry["workers"] for entry in filled):
        copy, backfill = rates["COPY", workers], rates["embed_backfill()", workers]
        print(f"{workers_name(workers):<20}{copy:>8.0f}{copy / rates['COPY', base]:>8.2f}{backfill:>20.0f}{backfill / rates['embed_backfill()', base]:>8.2f}")
    print(f"\n{next(entry['rows'] for entry in found if entry['part'] == 'search')} rows\n{'ms a search':<20}{'median':>8}{'10 %':>8}{'90 %':>8}")
    for entry in found:
        if entry["part"] == "search":
            print(f"{shards_name(entry['shards']):<20}{entry['ms']:>8.1f}{entry['tenth_ms']:>8.1f}{entry['ninth_tenth_ms']:>8.1f}")
    cores, workers = os.cpu_count() or 1, max(entry["workers"] for entry in filled)
    print(f"\nAll nodes share the {cores} cores of this machine"
          + (": more workers gain nothing here, and the ratio shows what the distribution costs." if 4 * workers >= cores else ".")
          + "\nOne session with one thread fills the local table, a session for each shard the others.", flush=True)


def plot(found: list) -> str:
    panels = [(what, "rows/s", [(workers_name(entry["workers"]), entry["rows_per_s"], int(not entry["workers"])) for entry in found
                                if entry.get("what") == what]) for what in ("COPY", "embed_backfill()")]
    panels.append(("search of ten rows", "ms", [(shards_name(entry["shards"]), entry["ms"], int(not entry["shards"])) for entry in found
                                                if entry["part"] == "search"]))
    return bars.svg("Citus, all nodes on one machine", panels, found[0]["cpu"])


def arguments():
    def numbers(value: str) -> list:
        return [int(number) for number in value.split(",")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--searches", type=int, default=40)
    parser.add_argument("--workers", type=numbers, default=[1, 2, 3])
    parser.add_argument("--shards", type=numbers, default=[4, 32])
    return parser.parse_args()


def main() -> int:
    options = arguments()
    lacking = citus_nodes.missing()
    if lacking:
        say("make bench-citus did not run:\n  " + "\n  ".join(lacking))
        return 0
    sys.path.insert(0, str(state.python_packages(pytests.PACKAGES)))
    with state.lock("citus"):
        work = state.directory("bench-citus")
        nodes = None
        try:
            described = {"pg_config": str(postgres.find_pg_config()), "work": str(work), "model": str(model.minilm())}
            nodes = citus_nodes.Nodes(described, workers=max(2, *options.workers))
            nodes.setup()
            with nodes.coordinator.connect() as connection:
                bench = Bench(nodes, connection)
                say(f"{peers.cpu()}; {nodes.coordinator.value('select kernels from embed_model()')}; {len(bench.texts)} rows")
                found = fill(bench, options) + search(bench, options)
        finally:
            if nodes:
                nodes.destroy()
            shutil.rmtree(work, ignore_errors=True)
    peers.RESULTS.mkdir(parents=True, exist_ok=True)
    (peers.RESULTS / "citus.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (peers.RESULTS / "citus.svg").write_text(plot(found), encoding="utf-8")
    tables(found)
    say(f"{peers.RESULTS / 'citus.json'}, {peers.RESULTS / 'citus.svg'}")
    return 0


if __name__ == "__main__":
    state.verb(main)
