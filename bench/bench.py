"""`make bench`: the engine alone, by criterion (engine/benches). Arguments of `bench/bench.py` select benchmarks by name."""

import os
import subprocess
import sys

import scripts_path  # noqa: F401

import build
import state
from state import CLONE, say


def main() -> int:
    say(f"load {os.getloadavg()[0]:.1f}; criterion keeps its figures in target/criterion and says what changed since")
    command = [build.cargo(), "bench", "--profile", "fast", "-p", "gte-engine", "--bench", "engine", "--", *sys.argv[1:]]
    return subprocess.run(command, cwd=CLONE, env=build.environment()).returncode


if __name__ == "__main__":
    state.verb(main)
