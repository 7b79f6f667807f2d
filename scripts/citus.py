"""`make test-citus PG_CONFIG=…`: distributed tables on private clusters, a coordinator and two workers.

It needs a PostgreSQL of yours in which Citus, pgvector and gte-small are installed. Elsewhere it says what is missing and
ends without an error. The clusters have sockets and ports of their own, and are removed at the end.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import build
import model
import postgres
import pytests
import state
from state import CLONE, say
from tally import Tally

# What each needs, and how it is got.
EXTENSIONS = {
    "citus": "build and install Citus for this PostgreSQL",
    "vector": "build and install pgvector for this PostgreSQL",
    "gte-small": "make install PG_CONFIG={pg_config}",
}


def missing() -> list:
    """What keeps the tests from running, a line each; empty if nothing does."""
    if not os.environ.get("PG_CONFIG"):
        return ["PG_CONFIG is not set: name the pg_config of a PostgreSQL with Citus"]
    pg_config = postgres.find_pg_config()
    extensions = Path(postgres.config(pg_config, "--sharedir")) / "extension"
    lacking = [f"{name} is not installed: {how.format(pg_config=pg_config)}" for name, how in EXTENSIONS.items()
               if not (extensions / f"{name}.control").is_file()]
    if not lacking and not build.library_place(pg_config).is_file():
        lacking.append(f"the library of gte-small is not installed: make install PG_CONFIG={pg_config}")
    return lacking


def main() -> int:
    lacking = missing()
    if lacking:
        say("make test-citus did not run:\n  " + "\n  ".join(lacking))
        return 0
    tally = Tally()
    with state.lock("citus"):
        work = state.directory("citus")
        try:
            with tally.step("Citus"):
                described = {"pg_config": str(postgres.find_pg_config()), "work": str(work), "model": str(model.minilm())}
                process = pytests.Process(work / "citus.xml", CLONE / "tests" / "citus", *sys.argv[1:],
                                          GTE_CITUS=json.dumps(described))
                process.count(tally, process.in_foreground())
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return tally.finish()


if __name__ == "__main__":
    state.verb(main)
