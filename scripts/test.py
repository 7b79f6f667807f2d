"""Everything behind `make check`, `make test` and `make installcheck`; the last line reads `N passed, M failed, K skipped`.

    scripts/test.py check                what needs no server: format, clippy, tests of the pure crates
    scripts/test.py test [--pg 16]       check, then everything else on a throw-away server
    scripts/test.py installcheck         regression and end-to-end tests on a throw-away server of PG_CONFIG's PostgreSQL

`--only regress,e2e` runs some of the steps, `-k WORD` only matching end-to-end tests, `--accept` takes what the
regression tests print for what is expected, `--long` runs the tests of endurance at their full length. A step that
cannot run counts as a failure.
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
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

import build
import model
import postgres
import regress
import state
from state import CLONE, Failure

# pytest 8.4 and psycopg 3.2 are the last that run on Python 3.9.
PACKAGES = [
    "pytest==8.4.2", "pluggy==1.6.0", "iniconfig==2.1.0", "packaging==25.0", "pygments==2.19.2",
    "tomli==2.2.1; python_version < '3.11'", "exceptiongroup==1.3.0; python_version < '3.11'",
    "psycopg[binary]==3.2.13", "typing_extensions==4.15.0",
]
# Reference files that may lie beside the clone; tests on them are skipped where they are not.
SHARED = CLONE.parent / "shared" / "data"
PURE_CRATES = ["-p", "gte-engine", "-p", "pgvector-compat"]
# Roles without any right, which the tests give some to.
ROLES = ["gte_plain", "gte_reader", "gte_owner"]
# Data that vanishes after the run needs no care for crashes.
SERVER_SETTINGS = {
    "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "40",
    "max_wal_size": "4GB", "autovacuum": "off", "timezone": "UTC", "lc_messages": "C", "log_checkpoints": "off",
}


class Tally:
    """What passed, failed and was skipped so far, and how long each step took."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []

    def add(self, passed: int, failed: int, skipped: int = 0) -> None:
        self.passed, self.failed, self.skipped = self.passed + passed, self.failed + failed, self.skipped + skipped

    @contextlib.contextmanager
    def step(self, title: str):
        """A step of the run; its failure ends the step, not the run."""
        say(f"\n=== {title}")
        began, failed = time.monotonic(), self.failed
        try:
            yield
        except (Failure, OSError, subprocess.SubprocessError) as failure:
            say(f"could not run: {failure}")
            self.add(0, 1)
        if self.failed > failed:
            self.failures.append(title)
        say(f"=== {title}: {'failed' if self.failed > failed else 'ok'}, {time.monotonic() - began:.1f} s")

    def skip(self, count: int, what: str) -> None:
        say(f"skipped: {what}")
        self.add(0, 0, count)

    def finish(self) -> int:
        say("")
        for title in self.failures:
            say(f"failed: {title}")
        say(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        return 1 if self.failed else 0


def say(message: str) -> None:
    print(message, flush=True)


def run(command, env=None, cwd=CLONE):
    """Runs a command, showing its output as it comes; returns (exit code, output)."""
    command = [str(part) for part in command]
    lines = []
    with subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, encoding="utf-8", errors="replace") as process:
        try:
            for line in process.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                lines.append(line)
        except BaseException:
            # Ctrl-C reaches the whole group, a plain kill only this process.
            process.terminate()
            raise
    return process.returncode, "".join(lines)


def one_check(tally: Tally, title: str, command, env=None) -> None:
    """A step that passes or fails as a whole."""
    with tally.step(title):
        code, _ = run(command, env)
        tally.add(*((1, 0) if code == 0 else (0, 1)))


def cargo_test(tally: Tally, title: str, *arguments, **variables) -> None:
    """Cargo's tests, counted from its result lines; tests it ignores are run and counted by another step."""
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


def pytest(tally: Tally, title: str, junit: Path, *arguments, **variables) -> None:
    with tally.step(title):
        packages = state.python_packages(PACKAGES)
        env = {**state.environment(), "PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1", **variables}
        junit.unlink(missing_ok=True)
        code, _ = run([sys.executable, "-m", "pytest", "-q", "-ra", "--tb=short", "--durations=5", "-p", "no:cacheprovider",
                       f"--junitxml={junit}", *arguments], env)
        if not junit.is_file():
            raise Failure(f"pytest ended with {code} before it ran a test")
        suite = xml.etree.ElementTree.parse(junit).getroot().find("testsuite")
        total, skipped = int(suite.get("tests")), int(suite.get("skipped"))
        failed = int(suite.get("failures")) + int(suite.get("errors"))
        if total == 0:
            raise Failure("no test ran")
        if code not in (0, 1):
            raise Failure(f"pytest ended with {code}")
        tally.add(max(0, total - failed - skipped), failed, skipped)


# --- steps that need no server ---


def check(tally: Tally, version: int) -> None:
    """Format, clippy over everything that is built, and the tests of the crates that know no Postgres."""
    one_check(tally, "format", [build.cargo(), "fmt", "--all", "--check"], build.environment())
    with tally.step("clippy"):
        env = build.environment(postgres.find_pg_config(version))
        code, _ = run([build.cargo(), "clippy", "--profile", "fast", "--workspace", "--all-targets",
                       "--no-default-features", "--features", f"pg{version}", "--", "-D", "warnings"], env)
        tally.add(*((1, 0) if code == 0 else (0, 1)))
    cargo_test(tally, "pure crates", *PURE_CRATES)


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
    # `embed` takes one text: the case of a text pair has no counterpart.
    lines = [json.dumps({"text": case["text"], "ids": case["ids"]}) + "\n" for case in published
             if not case.get("text_pair")]
    (tokens / "published.jsonl").write_text("".join(lines), encoding="utf-8")
    cargo_test(tally, "token ids of shared/data", "-p", "gte-engine", "--test", "shared_tokens", "--", "--ignored",
               GTE_SHARED_TOKENS=str(tokens))


def shared_chunks(tally: Tally, work: Path) -> None:
    """Chunks of real texts beside the clone: XQuAD's passages, in other languages too, and medical abstracts."""
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


def private_copy(pg_config: Path, work: Path) -> Path:
    """The embedded PostgreSQL again, by hard links: what is installed here does not reach a demo server in use."""
    release = pg_config.parents[1]
    root = release.parents[1]
    copy = work / "postgres"
    shutil.rmtree(copy, ignore_errors=True)

    def link(source, target):
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    for part in [release.relative_to(root), *(path.relative_to(root) for path in root.glob("*.libs"))]:
        shutil.copytree(root / part, copy / part, symlinks=True, copy_function=link)
    for folder, _, _ in os.walk(copy):
        os.chmod(folder, 0o755)
    private = copy / pg_config.relative_to(root)
    build.uninstall(private)
    shutil.rmtree(Path(postgres.config(private, "--sharedir")) / "gte-small", ignore_errors=True)
    return private


def installed(version: int, work: Path) -> Path:
    """Builds the extension and installs it where the tests run: in a private copy, or in the PostgreSQL of PG_CONFIG."""
    pg_config = postgres.find_pg_config(version)
    postgres.require_pgvector(pg_config)
    library = build.build(pg_config)
    if not os.environ.get("PG_CONFIG"):
        pg_config = private_copy(pg_config, work)
    build.install(pg_config, library)
    return pg_config


@contextlib.contextmanager
def measured_server(name: str, **settings):
    """A throw-away server with the extension and MiniLM for a measurement, and a directory; both are gone afterwards."""
    version = int(os.environ.get("PG") or 18)
    with state.lock(name):
        work = state.directory(name)
        try:
            pg_config = installed(version, work)
            wanted = {**SERVER_SETTINGS, "gte_small.model_path": str(model.minilm()), **settings}
            with postgres.Cluster(pg_config, work / "cluster", wanted) as cluster:
                cluster.destroy()
                cluster.create()
                cluster.start()
                cluster.psql('create extension "gte-small" cascade;')
                yield cluster, work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def tiny_models(work: Path) -> dict:
    """Two small models of random weights; their directories by the names the tests know."""
    models = {"tiny": ["--seed", "1"], "tiny_other": ["--seed", "2", "--f16"]}
    for name, options in models.items():
        command = [build.cargo(), "run", "--quiet", "--profile", "fast", "-p", "gte-engine", "--example", "tiny-model",
                   "--", work / name, *options]
        code, _ = run(command, build.environment())
        if code != 0:
            raise Failure("the tiny model could not be made")
        for path in [work / name, *(work / name).iterdir()]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    return {name: str(work / name) for name in models}


def sql_regression(tally: Tally, cluster, work: Path, accepting: bool) -> None:
    with tally.step("SQL regression"):
        results = work / "results"
        for name, passed in regress.run(cluster, results, accepting):
            say(f"{'ok    ' if passed else 'FAILED'} {name}")
            tally.add(*((1, 0) if passed else (0, 1)))
        differences = (results / "regression.diffs").read_text(encoding="utf-8")
        if differences:
            say("regression.diffs:\n" + differences)


def on_a_server(tally: Tally, pg_config: Path, work: Path, options) -> None:
    """Regression and end-to-end tests on a new cluster, which is gone afterwards, whatever happens."""
    cluster = None
    try:
        with tally.step("server"):
            described = {**tiny_models(work), "minilm": str(model.minilm()), "scratch": str(work)}
            cluster = postgres.Cluster(pg_config, work / "cluster", SERVER_SETTINGS)
            cluster.destroy()
            cluster.create()
            cluster.start({"gte_small.model_path": described["tiny"]})
            cluster.psql("".join(f"create role {role} login;\n" for role in ROLES))
            described.update(pg_config=str(pg_config), directory=str(cluster.directory), settings=SERVER_SETTINGS)
        if cluster is None or not cluster.running():
            return
        if "regress" in options.only:
            sql_regression(tally, cluster, work, options.accept)
        if "e2e" in options.only:
            selection = ["-k", options.k] if options.k else []
            pytest(tally, "end to end", work / "e2e.xml", CLONE / "tests" / "e2e", *selection,
                   GTE_TEST=json.dumps(described))
        if not cluster.running():
            say("\nthe server is gone; the end of its log:\n" + cluster.log_tail(40))
    finally:
        if cluster is not None:
            cluster.destroy()


STEPS = {
    "check": ["check"],
    "test": ["check", "engine", "hub", "regress", "e2e"],
    "installcheck": ["regress", "e2e"],
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", nargs="?", default="test", choices=STEPS)
    parser.add_argument("--pg", type=int, default=int(os.environ.get("PG") or 18), help="major version (18)")
    parser.add_argument("--only", default="", help="some of: check, engine, hub, regress, e2e")
    parser.add_argument("-k", default="", help="end-to-end tests whose name matches")
    parser.add_argument("--long", action="store_true", help="all 200,000 calls, longer mischief, many more random cases")
    parser.add_argument("--accept", action="store_true", help="write the regression tests' expected output")
    options = parser.parse_args()
    options.only = [step for step in options.only.split(",") if step] or STEPS[options.verb]
    unknown = set(options.only) - set(STEPS["test"])
    if unknown:
        parser.error(f"no such step: {', '.join(sorted(unknown))}")
    return options


def main() -> int:
    options = arguments()
    if options.long:
        # Read by the tests themselves; proptest's own default is 256.
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
            if "engine" in options.only:
                real_weights(tally)
                shared_tokens(tally, work)
                shared_chunks(tally, work)
            if "hub" in options.only:
                pytest(tally, "hub", work / "hub.xml", CLONE / "tests" / "hub")
            if {"regress", "e2e"} & set(options.only):
                ready = None
                if options.verb == "installcheck":
                    ready = pg_config
                else:
                    with tally.step(f"build for PostgreSQL {version}"):
                        ready = installed(version, work)
                if ready is not None:
                    on_a_server(tally, ready, work, options)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return tally.finish()


if __name__ == "__main__":
    # A plain kill cleans up like Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    state.verb(main)
