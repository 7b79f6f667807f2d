"""SQL regression tests in the way of pg_regress: compares psql's output for each file with the expected output.

A new test is a new file in tests/regress/sql. `scripts/test.py --accept` writes its expected output; read it.
"""

import difflib
import subprocess
from pathlib import Path

from state import CLONE

HOME = CLONE / "tests" / "regress"


def names() -> list:
    return sorted(path.stem for path in (HOME / "sql").glob("*.sql"))


def output(cluster, name: str) -> str:
    """Runs one file in a database of its own that has the extension, echoing each line as pg_regress does."""
    database = f"regress_{name}"
    cluster.psql(f'drop database if exists {database} with (force);\ncreate database {database} template template0;\n')
    cluster.psql('set client_min_messages = warning;\ncreate extension "gte-small" cascade;\n', dbname=database)
    # Standard input, not -f: errors then carry no file name and line.
    with open(HOME / "sql" / f"{name}.sql", encoding="utf-8") as script:
        done = subprocess.run(
            [str(cluster.bin / "psql"), "-X", "-a", "-q", "-d", database],
            stdin=script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", cwd=CLONE,
            env=cluster.environment())
    cluster.psql(f"drop database {database} with (force);\n")
    return done.stdout


def difference(name: str, found: str) -> str:
    """A unified diff; empty if the output is as expected."""
    expected = HOME / "expected" / f"{name}.out"
    wanted = expected.read_text(encoding="utf-8") if expected.is_file() else ""
    lines = difflib.unified_diff(wanted.splitlines(), found.splitlines(),
                                 f"expected/{name}.out", f"results/{name}.out", lineterm="")
    return "".join(line + "\n" for line in lines)


def accept(name: str, found: str) -> None:
    (HOME / "expected").mkdir(exist_ok=True)
    (HOME / "expected" / f"{name}.out").write_text(found, encoding="utf-8")


def run(cluster, results: Path, accepting: bool = False):
    """Yields (name, passed) for each file; the differences are collected in results/regression.diffs."""
    results.mkdir(parents=True, exist_ok=True)
    diffs = results / "regression.diffs"
    diffs.write_text("", encoding="utf-8")
    for name in names():
        found = output(cluster, name)
        if accepting:
            accept(name, found)
        missed = difference(name, found)
        if missed:
            with open(diffs, "a", encoding="utf-8") as file:
                file.write(missed)
        yield name, not missed
