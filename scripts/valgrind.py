"""`make valgrind`: runs tests of the unsafe code under valgrind's memcheck, which checks every memory access.

These are the tests of the engine's kernels, threads and interrupts, and of the reader of pgvector's layout. valgrind has
no AVX-512 and no AMX, so the AVX2 and portable kernels run. It takes about ten minutes of processor time. It needs Linux
and valgrind; without them it reports that and does nothing.
"""

import json
import os
import re
import shutil
import subprocess

import build
import state
from state import CLONE, Failure, say

# Test targets: the unit tests of both crates, and files of tests/.
TESTS = ["pgvector_compat", "any_bytes", "gte_engine", "interruption", "kernels"]
# valgrind uses signal 64 itself, so helpers can't block it.
SKIPPED = ["--skip", "helpers_block_every_signal"]
# Fewer random cases, because each takes fifty times as long. One thread for candle, because its threads would wait for
# each other on the one core that valgrind simulates.
VARIABLES = {"PROPTEST_CASES": "300", "RAYON_NUM_THREADS": "1"}


def executables() -> dict:
    """Test binaries by target, built now."""
    command = [build.cargo(), "test", "--profile", "fast", "-p", "gte-engine", "-p", "pgvector-compat", "--no-run",
               "--message-format=json"]
    done = subprocess.run(command, cwd=CLONE, env=build.environment(), stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode != 0:
        raise Failure("the tests could not be built; cargo says above why")
    messages = (json.loads(line) for line in done.stdout.splitlines())
    made = {m["target"]["name"]: (m["executable"], m["manifest_path"]) for m in messages
            if m["reason"] == "compiler-artifact" and m.get("executable") and m["profile"]["test"]}
    return {name: made[name] for name in TESTS}


def main() -> int:
    valgrind = shutil.which("valgrind")
    if not valgrind:
        say("skipped: valgrind is not installed (Debian and Ubuntu: apt-get install valgrind)")
        return 0
    clean = True
    for name, (executable, manifest) in executables().items():
        command = [valgrind, "--error-exitcode=9", "--leak-check=no", "--fair-sched=yes", executable, *SKIPPED]
        done = subprocess.run(command, cwd=os.path.dirname(manifest), env={**build.environment(), **VARIABLES},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace")
        passed = re.search(r"test result: ok\. (\d+) passed", done.stdout)
        errors = re.search(r"ERROR SUMMARY: (\d+) errors", done.stdout)
        if done.returncode != 0 or not passed or not errors:
            clean = False
            print(done.stdout)
        print(f"{name:<18}{passed.group(1) if passed else '?':>4} tests passed "
              f"{errors.group(1) if errors else '?':>4} memory errors", flush=True)
    print("no invalid memory access" if clean else "NOT clean; valgrind's report is above")
    return 0 if clean else 1


if __name__ == "__main__":
    state.verb(main)
