"""`make bench-sql`: compares the extension, used through SQL, with the engine alone, in interleaved rounds.

It measures on a throw-away server with MiniLM, by pgbench (median of its transaction log) and /proc/PID/smaps_rollup,
always with `gte_small.memo_size = 0`. The server runs without fsync, synchronous commits and autovacuum, so that the
figures do not depend on the disk. The engine runs the same texts, tokenizing included, in a process of its own
(engine/examples/peer.rs), in turn with each round of pgbench. Results are written to target/bench/sql.json
and sql.svg.

    bench/sql.py [--rounds 1.0] [--only latency,insert,array,first,memory,sessions,searches,cost,long]

The exit code says whether every figure with a target met it. UNJUDGED=1 leaves it at 0.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import tempfile
from pathlib import Path

import scripts_path  # noqa: F401

import bars
import model
import peers
import sql_texts
import state
import throwaway
from session import Session
from sql_searches import searches
from state import Failure, say

PARTS = ("latency", "insert", "array", "first", "memory", "sessions", "searches", "cost", "long")
# Words of one token each, so that the number of tokens of a text is known.
WORDS = ("water", "house", "night", "music", "paper", "river", "stone", "light", "green", "market", "school", "winter",
         "mother", "street", "window", "garden", "letter", "summer", "doctor", "engine", "people", "system", "number")
LENGTHS = (12, 32, 128, 256)
SESSIONS = (1, 2, 4, 16)


def text(tokens: int, seed: int = 0) -> str:
    """[CLS] and [SEP] count."""
    return " ".join(WORDS[(seed * 7 + i * (1 + seed % 5)) % len(WORDS)] for i in range(tokens - 2))


def rows() -> list:
    """Texts as in usual tables: 8 to 127 tokens, with a median of about 40."""
    return [text(8 + (i * i * 17 + i) % 40 + (80 if i % 8 == 0 else 0), i) for i in range(200)]


class Bench:
    """The server, the engine's process and the results."""

    def __init__(self, cluster, engine, work: Path, scale: float):
        self.cluster, self.engine, self.work, self.scale = cluster, engine, work, scale
        self.found = []

    def times(self, count: int) -> int:
        return max(3, round(count * self.scale))

    def pgbench(self, script: str, *, transactions=0, seconds=0, clients=1, threads=1, reconnect=False) -> list:
        """(second of the epoch at which it ended, milliseconds it took) of each transaction of the run."""
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            os.chmod(folder, 0o777)
            (Path(folder) / "script.sql").write_text(script, encoding="utf-8")
            length = ["-T", str(seconds)] if seconds else ["-t", str(transactions)]
            env = {"PGOPTIONS": f"-c gte_small.memo_size=0 -c gte_small.threads={threads}"}
            done = self.cluster.tool(
                "pgbench", "-n", "-M", "simple", "-f", str(Path(folder) / "script.sql"), "-c", str(clients),
                "-j", str(min(clients, 2)), "--random-seed=1", *length, *(["-C"] if reconnect else []), "-l",
                "--log-prefix", str(Path(folder) / "log"), "-U", "postgres", "postgres", env=env)
            # pgbench 14 does not count them: there an error ends the run.
            if re.search(r"failed transactions: (?!0 \()", done.stdout):
                raise Failure(f"transactions failed:\n{done.stdout}")
            logged = [line.split() for file in Path(folder).glob("log*") for line in file.read_text().splitlines()]
            return [(float(line[4]) + float(line[5]) / 1e6, float(line[2]) / 1e3) for line in logged]

    def record(self, part: str, what: str, value: str, target: str = "", met=None, **figures) -> None:
        verdict = "" if met is None else "  met" if met else "  MISSED"
        print(f"{part:<9} {what:<44} {value:<60} {target}{verdict}", flush=True)
        self.found.append({"part": part, "what": what, "target": target, "met": met, **figures})


def embed_call(content: str) -> str:
    return f"select embed('{content}');\n"


# A statement that computes for this number of microseconds and does nothing else.
BUSY = """create or replace function busy(us int) returns int language plpgsql as $$
declare until timestamptz := clock_timestamp() + us * interval '1 microsecond';
begin while clock_timestamp() < until loop end loop; return us; end $$;"""


@contextlib.contextmanager
def on_cores(bench: Bench, cores: set):
    """Restricts the client, the server's later sessions and the engine to these cores."""
    def move(to: set) -> None:
        for pid in (os.getpid(), bench.cluster.pid(), bench.engine.pid):
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), to)
    all_cores = os.sched_getaffinity(0)
    try:
        move(cores)
        yield
    finally:
        move(all_cores)


def places(bench: Bench) -> dict:
    """Where to measure: a set of cores, or None for any. One core only if the system lets processes be restricted to it."""
    found = {"any core": None}
    try:
        one = {min(os.sched_getaffinity(0))}
        with on_cores(bench, one):
            found["one core"] = one
    except (AttributeError, PermissionError):
        say("processes can't be kept on one core here: no figures for it")
    return found


def latency(bench: Bench) -> None:
    """One query by length: pgbench's median and the engine's, in turn.

    A client that has waited a millisecond wakes up later than one that waited for `select 1`, because its core sleeps
    deeper after a longer wait. To measure this part of the difference, a statement that is only busy for the engine's
    time runs in turn as well. All of it also runs with client, session and engine on one core, which never sleeps. The
    verdicts are about the whole difference.
    """
    bench.cluster.psql(BUSY)
    chosen = places(bench)
    for tokens in LENGTHS:
        content = text(tokens)
        bench.engine.ask({"strings": "one", "texts": [content]})
        times = {place: ([], [], []) for place in chosen}
        for _ in range(bench.times(9)):
            for place, cores in chosen.items():
                with on_cores(bench, cores) if cores else contextlib.nullcontext():
                    engine, sql, waits = times[place]
                    took = bench.engine.ask({"run": "one", "threads": 1, "times": 40})["ms"]
                    engine += took
                    # The first transactions load the model and warm the caches.
                    sql += [ms for _, ms in bench.pgbench(embed_call(content), transactions=50)][10:]
                    busy = round(statistics.median(took) * 1e3)
                    waits += [ms * 1e3 - busy for _, ms in bench.pgbench(f"select busy({busy});\n", transactions=50)][10:]
        for place, (engine, sql, waits) in times.items():
            one, other, wait = statistics.median(engine), statistics.median(sql), statistics.median(waits)
            over = (other - one) * 1e3
            if other < one / 2:
                # SQL can't be faster than the engine in it: the client's clock stood still, as on a machine that is overcommitted.
                bench.record("latency", f"select embed(...), {tokens} tokens, {place}", f"no figure: pgbench measured {other:.3f} ms, engine {one:.3f}",
                             "<= 5 % + 50 us", False, tokens=tokens, place=place)
                continue
            bench.record("latency", f"select embed(...), {tokens} tokens, {place}",
                         f"{other:.3f} ms, engine {one:.3f}: {over:+.0f} us, a busy statement {wait:+.0f}",
                         "<= 5 % + 50 us", other <= one * 1.05 + 0.05, tokens=tokens, place=place, sql_ms=other,
                         engine_ms=one, busy_statement_us=wait)


def fill_texts(bench: Bench) -> list:
    contents = rows()
    values = ", ".join(f"({i}, '{content}')" for i, content in enumerate(contents, 1))
    bench.cluster.psql("drop table if exists texts, filled; create table texts (id int primary key, content text); "
                       "create table filled (content text, embedding vector(384)); "
                       "create trigger zzz_filled before insert or update on filled for each row execute function embed_trigger(); "
                       f"insert into texts values {values}; analyze texts;")
    bench.engine.ask({"strings": "rows", "texts": contents})
    return contents


def insert(bench: Bench) -> None:
    """INSERTs through the trigger without an index: single rows in autocommit mode, and one INSERT of all rows."""
    contents = fill_texts(bench)
    singles = "\n".join(f"insert into filled (content) values ('{content}');" for content in contents)
    for what, script, warm in [
        ("INSERT of one row, a statement each", f"select embed('warm');\n{singles}\n", 1),
        ("INSERT ... SELECT of 200 rows", "insert into filled (content) select content from texts;\n", 2),
    ]:
        sql, engine = [], []
        for _ in range(bench.times(7)):
            engine += bench.engine.ask({"run": "rows", "threads": 1, "times": 2})["ms"]
            sql += [ms for _, ms in bench.pgbench(script, transactions=2 + warm)][warm:]
            bench.cluster.psql("truncate filled;")
        rate, best = len(contents) / statistics.median(sql) * 1e3, len(contents) / statistics.median(engine) * 1e3
        bench.record("insert", what, f"{rate:.0f} rows/s, engine {best:.0f} texts/s: {rate / best:.1%}", ">= 90 %",
                     rate >= 0.9 * best, rows_per_s=rate, engine_texts_per_s=best)


def array(bench: Bench) -> None:
    """embed(text[]) of 200 texts in one call, the engine's batch, and one call per text."""
    contents = fill_texts(bench)
    script = "select embed((select array_agg(content) from texts)) is null;\n"
    sql, batch, single = [], [], []
    for _ in range(bench.times(7)):
        batch += bench.engine.ask({"run": "rows", "threads": 1, "times": 2, "batch": True})["ms"]
        single += bench.engine.ask({"run": "rows", "threads": 1, "times": 2})["ms"]
        sql += [ms for _, ms in bench.pgbench(script, transactions=4)][2:]
    rate, best, alone = (len(contents) / statistics.median(times) * 1e3 for times in (sql, batch, single))
    bench.record("array", "embed(text[]), 200 texts", f"{rate:.0f} texts/s, engine's batch {best:.0f}, one by one {alone:.0f}",
                 rows_per_s=rate, engine_batch_per_s=best, engine_single_per_s=alone)


def first(bench: Bench, preloaded: bool) -> None:
    """The time that the first embed() adds to a new connection."""
    with_embed, without = [], []
    for _ in range(bench.times(5)):
        without += [ms for _, ms in bench.pgbench("select 1;\n", transactions=20, reconnect=True)]
        with_embed += [ms for _, ms in bench.pgbench(embed_call(text(12)), transactions=20, reconnect=True)]
    added = statistics.median(with_embed) - statistics.median(without)
    limit = 10 if preloaded else 60
    bench.record("first", f"first embed() of a connection, {'preloaded' if preloaded else 'not preloaded'}",
                 f"{added:.1f} ms more than select 1", f"<= {limit} ms", added <= limit, added_ms=added, preloaded=preloaded)


def private_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))


def memory(bench: Bench, preloaded: bool) -> None:
    """Private memory of connections, less that of connections that never embed: one session alone, and four at once.

    A session alone owns pages that four sessions share, such as pages of the library that the server did not use before.
    """
    many = ", ".join(f"'{content}'" for content in rows())
    steps = [("a text of 12 tokens", embed_call(text(12))), ("then one of 512", embed_call(text(512))),
             ("then embed(text[]) of 200", f"select embed(array[{many}]) is null;")]

    def measure(count: int) -> list:
        """Medians in MB: after the first statement, which embeds nothing, and after each step."""
        sessions = [Session(bench.cluster, "postgres") for _ in range(count)]
        try:
            pids = [int(session.value("select pg_backend_pid()")) for session in sessions]
            found = []
            for statement in ["set gte_small.memo_size = 0; set gte_small.threads = 1;", *(sql for _, sql in steps)]:
                for session in sessions:
                    session.run(statement)
                found.append(statistics.median(private_kb(pid) for pid in pids) / 1024)
            return found
        finally:
            for session in sessions:
                session.__exit__()
    alone, four = measure(1), measure(4)
    for n, (what, _) in enumerate(steps, 1):
        one, each = alone[n] - alone[0], four[n] - four[0]
        limited = preloaded and n == 1
        bench.record("memory", f"{what}, {'preloaded' if preloaded else 'not preloaded'}",
                     f"+{one:.1f} MB private alone, +{each:.1f} MB each of four", "<= 8 MB" if limited else "",
                     max(one, each) <= 8 if limited else None, alone_mb=one, of_four_mb=each, preloaded=preloaded)


def sessions(bench: Bench) -> None:
    """Texts per second of 1 to 16 sessions, with one thread, two threads and the automatic rule, in turn."""
    fill_texts(bench)
    script = "\\set i random(1, 200)\nselect embed(content) from texts where id = :i;\n"
    rates = {}
    for _ in range(bench.times(5)):
        for clients in SESSIONS:
            for threads in (1, 2, 0):
                log = bench.pgbench(script, seconds=3, clients=clients, threads=threads)
                # Without the time in which the sessions load the model.
                ends = sorted(end for end, _ in log)
                steady = [end for end in ends if end >= ends[0] + 1]
                rates.setdefault((clients, threads), []).append((len(steady) - 1) / (steady[-1] - steady[0]))
    rate = {key: statistics.median(values) for key, values in rates.items()}
    for clients in SESSIONS:
        one, two, auto = (rate[clients, threads] for threads in (1, 2, 0))
        bench.record("sessions", f"{clients} session{'s' * (clients > 1)}, texts/s",
                     f"1 thread {one:.0f}, 2 threads {two:.0f}, automatic {auto:.0f}: {auto / max(one, two):.2f} of the better",
                     ">= 0.90", auto >= 0.9 * max(one, two), clients=clients, one=one, two=two, automatic=auto)
    gain = rate[2, 1] / rate[1, 1]
    bench.record("sessions", "two sessions of one thread", f"{gain:.2f} times the texts of one", ">= 1.8", gain >= 1.8, gain=gain)


# The figures of each part: their names in the results, what they are, the unit. The first are of the extension.
PLOTTED = {
    "latency": ("one text", "ms", {"sql_ms": "SQL", "engine_ms": "engine alone"}),
    "insert": ("INSERT", "rows/s", {"rows_per_s": "SQL", "engine_texts_per_s": "engine alone"}),
    "array": ("embed(text[])", "texts/s", {"rows_per_s": "SQL", "engine_batch_per_s": "engine's batch", "engine_single_per_s": "one by one"}),
    "first": ("first embed() of a connection", "ms more", {"added_ms": ""}),
    "memory": ("private memory", "MB", {"alone_mb": "alone", "of_four_mb": "each of four"}),
    "sessions": ("sessions", "texts/s", {"one": "1 thread", "two": "2 threads", "automatic": "automatic"}),
    "searches": ("searches", "ms", {"ms": "", "inlined_ms": "form of 0.1.0"}),
    "cost": ("processor time of a text", "ms", {"ms": ""}),
    "long": ("10 MB of text", "s", {"count_s": "token_count", "chunk_s": "chunk_text"}),
}


def plot(found: list) -> str:
    panels = []
    for part, (heading, unit, names) in PLOTTED.items():
        rows = [(", ".join(filter(None, [entry["what"], what])), entry[name], series)
                for entry in found if entry["part"] == part
                for series, (name, what) in enumerate(names.items()) if name in entry]
        panels.append((heading, unit, rows))
    return bars.svg("gte-small through SQL", panels, peers.cpu())


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=float, default=1.0, help="times the usual number of rounds")
    parser.add_argument("--only", default=",".join(PARTS))
    options = parser.parse_args()
    options.only = options.only.split(",")
    if set(options.only) - set(PARTS):
        parser.error(f"the parts are {', '.join(PARTS)}")
    return options


def main() -> int:
    options = arguments()
    say(f"{peers.cpu()}; load {os.getloadavg()[0]:.1f} before")
    programs, directory = peers.examples(), model.minilm()
    with throwaway.measured("bench-sql") as (cluster, work):
        engine = None
        try:
            with Session(cluster, "postgres") as session:
                precision = session.value("select precision from embed_model()")
            engine = peers.Process([programs["peer"], "gte-small", directory, precision])
            say(f"{model.MINILM}, {precision} ({engine.about['kernels']}), one thread where nothing else is said; "
                "a server without fsync and autovacuum")
            bench = Bench(cluster, engine, work, options.rounds)
            for preloaded in (False, True):
                if preloaded:
                    cluster.stop()
                    cluster.start({"shared_preload_libraries": "gte-small"})
                for name, part in (("first", first), ("memory", memory)):
                    if name in options.only:
                        part(bench, preloaded)
            for name, part in (("latency", latency), ("insert", insert), ("array", array), ("sessions", sessions), ("searches", searches),
                               ("cost", lambda bench: sql_texts.cost(bench, text(512))), ("long", sql_texts.long)):
                if name in options.only:
                    part(bench)
            peers.RESULTS.mkdir(parents=True, exist_ok=True)
            (peers.RESULTS / "sql.json").write_text(json.dumps({
                "cpu": peers.cpu(), "kernels": engine.about["kernels"], "precision": precision,
                "weights_sha256": state.sha256(directory / "model.safetensors"), "found": bench.found}, indent=1) + "\n")
            (peers.RESULTS / "sql.svg").write_text(plot(bench.found), encoding="utf-8")
            say(f"load {os.getloadavg()[0]:.1f} after; {peers.RESULTS / 'sql.json'}, {peers.RESULTS / 'sql.svg'}")
            missed = any(entry["met"] is False for entry in bench.found)
            return 1 if missed and not os.environ.get("UNJUDGED") else 0
        finally:
            if engine is not None:
                engine.end()


if __name__ == "__main__":
    state.verb(main)
