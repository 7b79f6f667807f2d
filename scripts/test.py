"""`make check`, `make test`, `make test-pg` and `make installcheck`. The last line is `N passed, M failed, K skipped`.

    scripts/test.py check                without a server: format, clippy, tests of the pure crates
    scripts/test.py test [--pg 16]       check, then everything else on a throw-away server
    scripts/test.py test-pg --pg 16      the part of test that depends on the version of PostgreSQL
    scripts/test.py installcheck         regression and end-to-end tests on a throw-away server of PG_CONFIG's PostgreSQL

`--only regress,e2e` runs some of the steps, `-k WORD` only matching end-to-end tests. `--accept` writes the output of the
regression tests as the expected output, `--long` runs the endurance tests at their full length. A step that cannot run
counts as a failure.
"""

import argparse
import contextlib
import csv
import gzip
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import build
import e2e
import model
import postgres
import pytests
import regress
import state
import throwaway
from state import SHARED, Failure
from tally import Tally, report, run

PURE_CRATES = ["-p", "gte-engine", "-p", "pgvector-compat"]


def one_check(tally: Tally, title: str, command, env=None) -> None:
    """A step that passes or fails as a whole."""
    with tally.step(title):
        code, _ = run(command, env)
        tally.add(*((1, 0) if code == 0 else (0, 1)))


def cargo_test(tally: Tally, title: str, *arguments, **variables) -> None:
    """Cargo's tests, counted from its result lines. Another step runs and counts the ignored tests."""
    with tally.step(title):
        command = [build.cargo(), "test", "--profile", "fast", "--no-fail-fast", *arguments]
        code, output = run(command, {**build.environment(), **variables})
        results = re.findall(r"^test result: \w+\. (\d+) passed; (\d+) failed;", output, re.MULTILINE)
        passed, failed = (sum(int(counts[i]) for counts in results) for i in (0, 1))
        if code != 0 and failed == 0:
            raise Failure("cargo built no tests or one of them crashed; what it says above names the cause")
        if passed + failed == 0:
            raise Failure("no test ran")
        tally.add(passed, failed)


# --- steps that need no server ---


def check(tally: Tally, version: int) -> None:
    """Format, clippy on all crates, and the tests of the crates without Postgres."""
    one_check(tally, "format", [build.cargo(), "fmt", "--all", "--check"], build.environment())
    clippy(tally, version)
    cargo_test(tally, "pure crates", *PURE_CRATES)


def clippy(tally: Tally, version: int) -> None:
    """On all crates, with the feature of this PostgreSQL. Cargo checks crates without that feature once for all versions."""
    with tally.step("clippy"):
        env = build.environment(postgres.find_pg_config(version))
        code, _ = run([build.cargo(), "clippy", "--profile", "fast", "--workspace", "--all-targets",
                       "--no-default-features", "--features", f"pg{version}", "--", "-D", "warnings"], env)
        tally.add(*((1, 0) if code == 0 else (0, 1)))


def real_weights(tally: Tally) -> None:
    minilm = None
    with tally.step("model of the tests"):
        minilm = model.minilm()
    if minilm:
        cargo_test(tally, "real weights", "-p", "gte-engine", "--test", "real_weights", "--", "--ignored",
                   GTE_MINILM_DIR=str(minilm))


def shared_tokens(tally: Tally, work: Path) -> None:
    """Token ids on the reference files beside the clone."""
    if not (SHARED / "tokenizer").is_dir():
        tally.skip(5, "token ids of shared/data, which is not beside the clone")
        return
    tokens = work / "tokens"
    tokens.mkdir(exist_ok=True)
    shutil.copy(SHARED / "gte-tokenizer" / "tokenizer.json", tokens)
    for packed in (SHARED / "tokenizer").glob("*.jsonl.gz"):
        (tokens / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    published = json.loads((SHARED / "tokenizer" / "transformersjs_bert_uncased.json").read_text(encoding="utf-8"))
    # The case with a pair of texts is left out, because `embed` takes one text.
    lines = [json.dumps({"text": case["text"], "ids": case["ids"]}) + "\n" for case in published
             if not case.get("text_pair")]
    (tokens / "published.jsonl").write_text("".join(lines), encoding="utf-8")
    cargo_test(tally, "token ids of shared/data", "-p", "gte-engine", "--test", "shared_tokens", "--", "--ignored",
               GTE_SHARED_TOKENS=str(tokens))


def shared_chunks(tally: Tally, work: Path) -> None:
    """Chunks of real texts beside the clone: XQuAD's passages in several languages, and medical abstracts."""
    if not (SHARED / "medical").is_dir():
        tally.skip(1, "chunks of shared/data, which is not beside the clone")
        return
    texts = work / "texts"
    texts.mkdir(exist_ok=True)
    shutil.copy(SHARED / "gte-tokenizer" / "tokenizer.json", texts)
    lines = (SHARED / "xquad" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    lines += gzip.decompress((SHARED / "tokenizer" / "ref_xquad_other_languages.jsonl.gz").read_bytes()).decode().splitlines()
    found = [json.loads(line)["text"] for line in lines]
    with (SHARED / "medical" / "medical_tc_test.csv").open(encoding="utf-8", newline="") as file:
        found += [row[-1] for row in csv.reader(file)]
    (texts / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in found), encoding="utf-8")
    cargo_test(tally, "chunks of shared/data", "-p", "gte-engine", "--test", "shared_chunks", "--", "--ignored", "--nocapture",
               GTE_SHARED_TEXTS=str(texts))


# --- steps on a throw-away server ---


def sql_regression(tally: Tally, cluster, work: Path, accepting: bool) -> None:
    with tally.step("SQL regression"):
        results = work / "results"
        for name, passed in regress.run(cluster, results, accepting):
            report(f"{'ok    ' if passed else 'FAILED'} {name}")
            tally.add(*((1, 0) if passed else (0, 1)))
        differences = (results / "regression.diffs").read_text(encoding="utf-8")
        if differences:
            report("regression.diffs:\n" + differences)


def on_servers(tally: Tally, pg_config: Path, work: Path, options) -> None:
    """Regression and end-to-end tests on new clusters, which are removed afterwards in any case."""
    wanted = e2e.number_of_servers(options.k) if "e2e" in options.only else 1
    with contextlib.ExitStack() as stack:
        servers = []
        with tally.step("server" if wanted == 1 else f"{wanted} servers"):
            models = {**throwaway.tiny_models(work), "minilm": str(model.minilm())}
            for number in range(1, wanted + 1):
                server = throwaway.TestServer(pg_config, work / f"server-{number}", models)
                servers.append(stack.enter_context(server))
        if len(servers) < wanted:
            return
        if "regress" in options.only:
            sql_regression(tally, servers[0].cluster, work, options.accept)
        if "e2e" in options.only:
            e2e.run(tally, servers, options.k)
        if "web" in options.only:
            pytests.web(tally, servers[0], options.k)
        if "browser" in options.only:
            pytests.web(tally, servers[0], options.k, in_browser=True)
        for server in servers:
            if not server.cluster.running():
                report("\na server is gone; the end of its log:\n" + server.cluster.log_tail(40))


VERBS = {
    "check": ["check"],
    "test": ["check", "engine", "hub", "regress", "e2e", "web"],
    "test-pg": ["clippy", "regress", "e2e"],
    "installcheck": ["regress", "e2e", "web"],
}
# `check` includes clippy. `browser` needs chromium.
STEPS = ["check", "clippy", "engine", "hub", "regress", "e2e", "web", "browser"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", nargs="?", default="test", choices=VERBS)
    parser.add_argument("--pg", type=int, default=int(os.environ.get("PG") or 18), help="major version (18)")
    parser.add_argument("--only", default="", help=f"some of: {', '.join(STEPS)}")
    parser.add_argument("-k", default="", help="end-to-end tests and tests of the search page whose name matches")
    parser.add_argument("--long", action="store_true", help="all 200,000 calls, longer concurrency tests, many more random cases")
    parser.add_argument("--accept", action="store_true", help="write the regression tests' expected output")
    options = parser.parse_args()
    options.only = [step for step in options.only.split(",") if step] or VERBS[options.verb]
    unknown = set(options.only) - set(STEPS)
    if unknown:
        parser.error(f"no such step: {', '.join(sorted(unknown))}")
    return options


def main() -> int:
    options = arguments()
    if options.long:
        # The tests read these; proptest's default is 256.
        os.environ.update(GTE_LONG="1", PROPTEST_CASES="5000")
    if options.verb == "installcheck":
        pg_config = build.own_pg_config()
        if not build.library_place(pg_config).is_file():
            raise Failure(f"gte-small is not installed in the PostgreSQL of {pg_config}, so there is nothing to check; "
                          "run `make install` with the same PG_CONFIG first")
    version = postgres.pg_version(postgres.find_pg_config(options.pg))
    tally = Tally()
    with state.lock(f"test-{version}"):
        work = state.directory(f"test-{version}")
        try:
            if "check" in options.only:
                check(tally, version)
            elif "clippy" in options.only:
                clippy(tally, version)
            if "engine" in options.only:
                real_weights(tally)
                shared_tokens(tally, work)
                shared_chunks(tally, work)
            if "hub" in options.only:
                pytests.hub(tally, work)
            if {"regress", "e2e", "web", "browser"} & set(options.only):
                ready = None
                if options.verb == "installcheck":
                    ready = pg_config
                else:
                    with tally.step(f"build for PostgreSQL {version}"):
                        ready = throwaway.installed(version, work)
                if ready is not None:
                    on_servers(tally, ready, work, options)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return tally.finish()


if __name__ == "__main__":
    # SIGTERM cleans up like Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    state.verb(main)
