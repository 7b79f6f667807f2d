"""`make bench-peers`: this engine, ONNX Runtime and stock candle on the same weights and the same token ids.

Each contender is a process of its own that gets token ids and reports its own time, without tokenizing and
communication. The contenders run in turn (A B C A B C ...), because a machine's speed drifts more than they differ. A
figure is the median of the rounds, a ratio is that of two medians.

Workloads: W1 one text of 12 tokens, W2 of 128, W3 of 512, W4 64 texts of mixed length (lognormal, median 60, longest
512) in batches. ONNX Runtime and candle get W4 sorted by length, in padded groups of the size that is fastest for each
on this machine (it is tried before the rounds). This engine makes its own batches.

Models: random weights in gte-small's shape (12 layers), and all-MiniLM-L6-v2 (6 layers). Results:
target/bench/peers.json and peers.svg. Builds are of the profile `fast`: what `make install` builds is as fast or faster.

    bench/peers.py [--models gte-small-shape,all-MiniLM-L6-v2] [--workloads W1,W2,W3,W4] [--threads 1,2] [--rounds 1.0]
"""

import argparse
import contextlib
import json
import math
import os
import platform
import random
import re
import statistics
import subprocess
import sys
from pathlib import Path

import scripts_path  # noqa: F401

import build
import model
import peers_plot
import state
from state import CLONE, Failure, say

PACKAGES = ["onnxruntime==1.32.0", "onnx==1.23.2", "numpy==2.4.6", "flatbuffers==25.12.19", "ml_dtypes==0.6.0",
            "packaging==26.3", "protobuf==7.36.2", "typing_extensions==4.16.0"]
PEERS_ONNX = CLONE / "bench" / "peers_onnx.py"
RESULTS = CLONE / "target" / "bench"
RANDOM, MINILM = "gte-small-shape", model.MINILM

# Rounds, and runs in each round. The median of the runs is the round's figure; short workloads run more often, against jitter.
WORKLOADS = {"W1": (21, 7), "W2": (11, 3), "W3": (9, 1), "W4": (5, 1)}
# A simple caller runs ONNX Runtime with all 64 in one group. candle would take a minute for each try of this.
GROUPS = {"ort-fp32": (1, 8, 64), "ort-int8": (1, 8, 64), "candle": (1, 8)}
TIERS = {"amx-bf16": "bf16", "avx512-bf16": "bf16", "avx512-f32": "f32", "avx2-f32": "f32", "portable-f32": "f32"}
# A contender with a lower cosine to ONNX Runtime fp32 does not compute the same model; int8 is only reported.
AGREES = {"f32": 0.99999, "bf16": 0.9995, "int8": 0.9}


def workloads() -> dict:
    """Token ids by workload; the same on every machine."""
    chance = random.Random(20240501)

    def text(length: int) -> list:
        return [101, *(chance.randrange(1000, 30000) for _ in range(length - 2)), 102]

    # Evenly spaced quantiles and not random draws: so the median is exactly 60 and the longest text has exactly 512.
    quantiles = [statistics.NormalDist().inv_cdf((i + 0.5) / 64) for i in range(64)]
    spread = math.log(512 / 60) / quantiles[-1]
    lengths = [max(3, round(60 * math.exp(spread * z))) for z in quantiles]
    chance.shuffle(lengths)
    made = {"W1": [text(12)], "W2": [text(128)], "W3": [text(512)], "W4": [text(length) for length in lengths]}
    return {**made, "check": [*made["W1"], *made["W2"], *made["W3"], *made["W4"][::8]]}


class Process:
    """One contender's process. Questions and answers are lines of JSON."""

    def __init__(self, command, env=None):
        self._process = subprocess.Popen([str(part) for part in command], env={**os.environ, **(env or {})},
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                         encoding="utf-8")
        self.about = self._answer()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, question: dict) -> dict:
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            said = self._process.stderr.read().strip()
            raise Failure(f"{self._process.args[0]} ended: {said}")
        return json.loads(line)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


class Contender:
    """An engine with its number format; `forced` if a tier was named that is not the fastest."""

    def __init__(self, engine: str, precision: str, start, forced: bool = False, padded: bool = True):
        self.engine, self.precision, self.forced, self.padded = engine, precision, forced, padded
        # The process for each number of threads. Most processes run any number; candle needs one process for each.
        self._start, self._processes = start, {}
        self.groups, self.tried, self.rounds, self.cosine = {}, {}, {}, None
        self.about = self.process(1).about

    def process(self, threads: int) -> Process:
        made = self._start(threads, self._processes)
        if made not in self._processes.values():
            for name, texts in workloads().items():
                made.ask({"ids": name, "texts": texts})
        self._processes[threads] = made
        return made

    @property
    def kernels(self) -> str:
        return self.about["kernels"]

    @property
    def title(self) -> str:
        return f"gte-small {self.kernels}" if self.engine == "gte-small" else self.engine

    def run(self, workload: str, threads: int, times: int = 1) -> float:
        question = {"run": workload, "threads": threads, "times": times, "group": self.groups.get((workload, threads), 1)}
        return statistics.median(self.process(threads).ask(question)["ms"])

    def choose_group(self, workload: str, threads: int) -> None:
        """Finds the size of padded groups that is fastest on this machine."""
        took = self.tried[workload, threads] = {}
        for size in GROUPS[self.engine]:
            self.groups[workload, threads] = size
            took[size] = self.run(workload, threads)
        self.groups[workload, threads] = min(took, key=took.get)

    def vectors(self) -> list:
        return self.process(1).ask({"vectors": "check"})["vectors"]

    def median(self, workload: str, threads: int) -> float:
        return statistics.median(self.rounds[workload, threads])

    def end(self) -> None:
        for process in set(self._processes.values()):
            process.end()


def same_for_all(command, env=None):
    """A process that takes any number of threads."""
    def start(_threads, there):
        return next(iter(there.values()), None) or Process(command, env)
    return start


def one_each(command):
    """One process for each number of threads: rayon, which candle uses, reads the number once."""
    def start(threads, there):
        return there.get(threads) or Process(command, {"RAYON_NUM_THREADS": str(threads)})
    return start


def examples() -> dict:
    """The two programs of this project. Builds them if needed."""
    command = [build.cargo(), "build", "--quiet", "--profile", "fast", "-p", "gte-engine", "--example", "peer",
               "--example", "tiny-model", "--message-format=json-render-diagnostics"]
    done = subprocess.run(command, cwd=CLONE, env=build.environment(), stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode != 0:
        raise Failure("cargo could not build the contenders; what it says above names the cause")
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}


def model_directory(name: str, programs: dict) -> Path:
    if name == MINILM:
        return model.minilm()
    directory = RESULTS / name
    subprocess.run([programs["tiny-model"], str(directory), "--like-gte-small"], check=True)
    return directory


def contenders(directory: Path, programs: dict, python: dict):
    """ONNX Runtime fp32 first: the others are compared with it."""
    graphs = RESULTS / f"{directory.name}-onnx"
    built = subprocess.run([sys.executable, str(PEERS_ONNX), "build", str(directory), str(graphs)],
                           env={**os.environ, **python}, stderr=subprocess.PIPE, encoding="utf-8")
    if built.returncode != 0:
        raise Failure(f"the ONNX graph could not be built:\n{built.stderr.strip()}")
    for engine, precision, graph in (("ort-fp32", "f32", "fp32"), ("ort-int8", "int8", "int8")):
        yield Contender(engine, precision,
                        same_for_all([sys.executable, PEERS_ONNX, "run", graphs / f"{graph}.onnx"], python))
    yield Contender("candle", "f32", one_each([programs["peer"], "candle", directory]))
    fastest = set()
    for precision in ("f32", "bf16"):
        with contextlib.suppress(Failure):  # not every CPU has bf16
            contender = Contender("gte-small", precision, padded=False,
                                  start=same_for_all([programs["peer"], "gte-small", directory, precision]))
            fastest.add(contender.kernels)
            yield contender
    for kernels, precision in TIERS.items():
        if kernels not in fastest:
            with contextlib.suppress(Failure):  # nor every tier
                yield Contender("gte-small", precision, forced=True, padded=False,
                                start=same_for_all([programs["peer"], "gte-small", directory, precision, kernels]))


def check_agreement(there: list) -> None:
    """Sets each contender's least cosine to ONNX Runtime fp32. Fails if a contender does not compute the same model."""
    reference = there[0].vectors()
    for contender in there:
        products = [sum(a * b for a, b in zip(*pair)) for pair in zip(reference, contender.vectors())]
        contender.cosine = min(products)
        if contender.cosine < AGREES[contender.precision]:
            raise Failure(f"{contender.title} has a cosine of {contender.cosine:.6f} to ONNX Runtime fp32, so it does "
                          "not run the same model and its time means nothing")


def race(there: list, options) -> None:
    """Rounds of every workload with every number of threads; each round runs all contenders in turn."""
    for threads in options.threads:
        for workload in options.workloads:
            rounds, times = WORKLOADS[workload]
            rounds = max(1, round(rounds * options.rounds))
            say(f"  {workload}, {threads} thread{'s' * (threads > 1)}: {rounds} rounds, load {os.getloadavg()[0]:.1f}")
            for contender in there:
                if workload == "W4" and contender.padded:
                    contender.choose_group(workload, threads)
                else:
                    contender.run(workload, threads)  # warms its caches and starts its threads
            for _ in range(rounds):
                for contender in there:
                    contender.rounds.setdefault((workload, threads), []).append(contender.run(workload, threads, times))


def cpu() -> str:
    with contextlib.suppress(OSError, AttributeError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE).group(1)
        flags = set(re.search(r"^flags\s*: (.*)$", text, re.MULTILINE).group(1).split())
        known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16") if flag in flags]
        return f"{name}, {os.cpu_count()} cores, {' '.join(known)}"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def locked_version(package: str) -> str:
    text = (CLONE / "Cargo.lock").read_text(encoding="utf-8")
    return re.search(rf'name = "{package}"\nversion = "(.*)"', text).group(1)


def entries(name: str, directory: Path, there: list, options):
    """What peers.json says of one model."""
    baseline = there[0]
    candle = next(contender for contender in there if contender.engine == "candle")
    common = {
        "model": name,
        "weights_sha256": state.sha256(directory / "model.safetensors"),
        "versions": {"gte-small": locked_version("gte-small"), "candle": locked_version("candle-core"),
                     "onnxruntime": baseline.about["version"], "python": platform.python_version()},
        "cpu": cpu(),
    }
    for contender in there:
        for workload in options.workloads:
            for threads in options.threads:
                median = contender.median(workload, threads)
                yield {
                    "engine": contender.engine, "precision": contender.precision, "threads": threads,
                    "workload": workload, "median_ms": round(median, 3),
                    "ratio_to_ort_fp32": round(baseline.median(workload, threads) / median, 3),
                    "rounds_ms": [round(ms, 3) for ms in contender.rounds[workload, threads]],
                    "ratio_to_candle": round(candle.median(workload, threads) / median, 3),
                    "kernels": contender.kernels, "forced": contender.forced,
                    "padded_groups_tried_ms": contender.tried.get((workload, threads)),
                    "padded_group": contender.groups.get((workload, threads)),
                    "least_cosine_to_ort_fp32": round(contender.cosine, 6), **common,
                }


def table(name: str, there: list, options) -> None:
    """Median milliseconds and, in parentheses, how many times faster than ONNX Runtime fp32 and stock candle."""
    baseline = there[0]
    candle = next(contender for contender in there if contender.engine == "candle")
    for threads in options.threads:
        print(f"\n{name}, {threads} thread{'s' * (threads > 1)}: ms (ratio to ort-fp32, to candle)")
        print("".join([f"{'':<24}", *(f"{workload:>24}" for workload in options.workloads), f"{'least cosine':>16}"]))
        for contender in there:
            cells = []
            for workload in options.workloads:
                ms = contender.median(workload, threads)
                ratios = [other.median(workload, threads) / ms for other in (baseline, candle)]
                cells.append(f"{ms:>10.2f} ({ratios[0]:5.2f},{ratios[1]:5.2f})")
            print("".join([f"{contender.title:<24}", *cells, f"{contender.cosine:>16.6f}"]), flush=True)
        for contender in there:
            tried = contender.tried.get(("W4", threads), {})
            if tried:
                times = ", ".join(f"{size}: {ms:.0f} ms" for size, ms in tried.items())
                print(f"{contender.title}, W4 by texts in a padded group, the fastest taken: {times}", flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, choices in (("models", [RANDOM, MINILM]), ("workloads", list(WORKLOADS)), ("threads", ["1", "2"])):
        parser.add_argument(f"--{name}", default=",".join(choices))
    parser.add_argument("--rounds", type=float, default=1.0, help="times the usual number of rounds")
    options = parser.parse_args()
    options.models, options.workloads = options.models.split(","), options.workloads.split(",")
    options.threads = [int(threads) for threads in options.threads.split(",")]
    unknown = set(options.models) - {RANDOM, MINILM} | set(options.workloads) - set(WORKLOADS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    return options


def main() -> int:
    options = arguments()
    if sys.version_info < (3, 11):
        raise Failure(f"this is Python {platform.python_version()}, and {PACKAGES[0]} needs 3.11 or newer; "
                      "make bench-peers PYTHON=python3.11")
    programs = examples()
    python = {"PYTHONPATH": str(state.python_packages(PACKAGES)), "PYTHONDONTWRITEBYTECODE": "1"}
    RESULTS.mkdir(parents=True, exist_ok=True)
    say(f"{cpu()}; load {os.getloadavg()[0]:.1f} before")
    found = []
    for name in options.models:
        say(name)
        directory = model_directory(name, programs)
        there = []
        try:
            for contender in contenders(directory, programs, python):
                there.append(contender)
            check_agreement(there)
            race(there, options)
            found += entries(name, directory, there, options)
            table(name, there, options)
        finally:
            for contender in there:
                contender.end()
    # The fastest tiers in gte-small's shape come first, because most readers look for them.
    found.sort(key=lambda entry: (entry["forced"], entry["model"] != RANDOM))
    (RESULTS / "peers.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "peers.svg").write_text(peers_plot.svg(found), encoding="utf-8")
    say(f"\nload {os.getloadavg()[0]:.1f} after; {RESULTS / 'peers.json'}, {RESULTS / 'peers.svg'}")
    return 0


if __name__ == "__main__":
    state.verb(main)
