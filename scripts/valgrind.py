"""`make valgrind`: tests of the unsafe code under valgrind's memcheck, which knows every byte they may touch.

The engine's kernels (valgrind shows no AVX-512, so AVX2 and the portable ones run), its threads and interrupts, and the
reader of pgvector's layout. Takes some ten minutes of processor time. Linux with valgrind installed; elsewhere it says
so and does nothing.
"""

import json
import os
import re
import shutil
import subprocess

import build
import state
from state import CLONE, Failure, say

# Targets whose tests run: unit tests of both crates, and files of tests/.
TESTS = ["pgvector_compat", "any_bytes", "gte_engine", "interruption", "kernels"]
# valgrind keeps signal 64 for itself.
SKIPPED = ["--skip", "pool_threads_block_every_signal"]
# Fewer random cases, as each takes fifty times as long. candle's own threads would spin for each other on the one core
# that valgrind gives to all.
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
              f"{errors.group(1) if errors else '?':>4} errors of memory", flush=True)
    print("nothing was read or written that should not be" if clean else "NOT clean; what valgrind says is above")
    return 0 if clean else 1


if __name__ == "__main__":
    state.verb(main)
