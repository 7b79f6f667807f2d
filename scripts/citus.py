"""`make test-citus PG_CONFIG=…`: distributed tables on private clusters, a coordinator and two workers.

It needs a PostgreSQL of yours in which Citus, pgvector and gte-small are installed. Elsewhere it says what is missing and
ends without an error. The clusters have sockets and ports of their own, and are removed at the end.
"""

import json
import shutil
import sys

import citus_nodes
import model
import postgres
import pytests
import state
from state import CLONE, say
from tally import Tally


def main() -> int:
    lacking = citus_nodes.missing()
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
