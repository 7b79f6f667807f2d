"""The end-to-end tests on one server, or on two servers side by side.

Each server has its own pytest process, cluster, directory and part of the test files. The output of the first process
appears as it comes, that of the second when the first has ended.
"""

import contextlib
import json
import os

import pytests
from state import CLONE
from tally import Tally, report

HOME = CLONE / "tests" / "e2e"
# Reads the server's log, so it runs last on each server.
LAST = "test_zz_server_log.py"
# Seconds of the slow files on two cores. Only the balance of the two parts depends on them.
SECONDS = {
    "test_fidelity.py": 48, "test_chunk_text.py": 32, "test_backfill_shared.py": 22, "test_endings.py": 18,
    "test_backfill_obstacles.py": 18, "test_growth.py": 17, "test_backfill_force.py": 17, "test_import.py": 15,
    "test_swapped_models.py": 15, "test_hybrid.py": 14, "test_chunks_sql.py": 12, "test_enable.py": 11,
    "test_backfill.py": 11, "test_note.py": 11, "test_connections.py": 10,
}
OTHER_SECONDS = 4


def number_of_servers(selected: str) -> int:
    """One server for a selection, which is too small to divide, and on one core, where a second server gains nothing."""
    return 2 if not selected and (os.cpu_count() or 1) > 1 else 1


def parts(number: int) -> list:
    """The test files in `number` parts that take about as long; the slowest files are distributed first."""
    names = sorted(path.name for path in HOME.glob("test_*.py") if path.name != LAST)
    made, seconds = [[] for _ in range(number)], [0] * number
    for name in sorted(names, key=lambda name: -SECONDS.get(name, OTHER_SECONDS)):
        shortest = seconds.index(min(seconds))
        made[shortest].append(name)
        seconds[shortest] += SECONDS.get(name, OTHER_SECONDS)
    return [[*sorted(part), LAST] for part in made]


def _process(server, files: list, selected: str) -> pytests.Process:
    selection = ["-k", selected] if selected else []
    return pytests.Process(server.work / "e2e.xml", *(HOME / name for name in files), *selection,
                           GTE_TEST=json.dumps(server.described))


def run(tally: Tally, servers: list, selected: str) -> None:
    with tally.step("end to end"):
        first, *others = [_process(server, files, selected) for server, files in zip(servers, parts(len(servers)))]
        with contextlib.ExitStack() as stack:
            ends = [stack.enter_context(process.in_background()) for process in others]
            codes = [first.in_foreground()]
            for end in ends:
                report("--- on the other server:")
                codes.append(end())
        for process, code in zip([first, *others], codes):
            process.count(tally, code)
