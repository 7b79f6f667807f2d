"""Parts "cost" and "long" of `make bench-sql`: what a role that may call `embed` can cost, and how fast long texts are read.

Processor times are those of the backend (/proc/PID/stat), so that other programs of the machine change them little.
"""

import os
import statistics
from pathlib import Path

import corpus
from session import Session

TEXTS = 300
MEGABYTE = 10 ** 6

# Texts of ten million characters. "letters" are words of 32 letters and digits, and none occurs twice.
LONG = {
    "English, the demo's texts": "select string_agg(content, E'\\n' order by n) from wanted, generate_series(1, {repeats})",
    "random letters": "select string_agg(md5(i::text), ' ') from generate_series(1, 10000000 / 33) i",
    "one word": "select repeat('a', 10000000)",
}


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cost(bench, longest: str) -> None:
    """Processor time of texts as long as the model reads, in one array, with one thread."""
    for precision in ("bf16", "f32"):
        with Session(bench.cluster, "postgres") as session:
            pid = int(session.value("select pg_backend_pid()"))
            session.run(f"set gte_small.precision = '{precision}'; set gte_small.threads = 1; set gte_small.memo_size = 0; select embed('load');")
            tokens = session.value(f"select least(token_count('{longest}'), max_tokens) from embed_model()")
            kernels = session.value("select kernels from embed_model()")
            found = []
            for number in range(bench.times(3)):
                began = processor_seconds(pid)
                session.value("select cardinality(embed(array(select "
                              f"'{number} ' || i || ' {longest}' from generate_series(1, {TEXTS}) i)))")
                found.append(processor_seconds(pid) - began)
        took = statistics.median(found)
        bench.record("cost", f"{TEXTS} texts of {tokens} tokens, {precision}",
                     f"{took:.1f} s of processor time, {took * 1000 / TEXTS:.1f} ms a text ({kernels})",
                     precision=precision, kernels=kernels, seconds=took, ms=took * 1000 / TEXTS)


def long(bench) -> None:
    """Seconds that token_count() and chunk_text() take for ten million characters."""
    with Session(bench.cluster, "postgres") as session:
        pid = int(session.value("select pg_backend_pid()"))
        session.run("set client_min_messages = warning; set gte_small.threads = 1;" + corpus.WANTED + ";")
        size = int(session.value("select sum(length(content) + 1) from wanted"))
        for name, statement in LONG.items():
            session.run(f"create temporary table long_text as {statement.format(repeats=10 * MEGABYTE // size + 1)};")
            column = session.value("select attname from pg_attribute where attrelid = 'long_text'::regclass and attnum = 1")
            megabytes = int(session.value(f"select octet_length({column}) from long_text")) / MEGABYTE
            took = {}
            for what, call in (("tokens", f"select token_count({column}) from long_text"),
                               ("chunks", f"select count(*) from long_text, chunk_text({column})")):
                seconds = []
                for _ in range(bench.times(3)):
                    began = processor_seconds(pid)
                    count = int(session.value(call))
                    seconds.append(processor_seconds(pid) - began)
                took[what] = (count, statistics.median(seconds))
            session.run("drop table long_text;")
            (tokens, counting), (chunks, chunking) = took["tokens"], took["chunks"]
            bench.record("long", f"{megabytes:.0f} MB, {name}",
                         f"{tokens} tokens in {counting:.2f} s, {chunks} chunks in {chunking:.2f} s",
                         tokens=tokens, count_s=counting, chunks=chunks, chunk_s=chunking)
