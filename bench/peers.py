"""`make bench-peers`: this engine beside ONNX Runtime, OpenVINO and stock candle, on the same weights and token ids.

Each contender is a process of its own that gets token ids and reports its own time: tokenizing and talking are not in
it. They run in turn (A B C A B C ...), because a machine's speed drifts more than they differ. A figure is the median of
the rounds, a ratio that of two medians. `min_ms` and `min_ratio_to_...` are the same of the fastest rounds.

Workloads: W1 one text of 12 tokens, W2 of 128, W3 of 512, W4 64 texts of mixed length (lognormal, median 60, longest
512) in batches. All others get W4 sorted by length, in padded groups of the size that is fastest for each on this
machine (it is tried before the rounds); this engine batches by itself.

OpenVINO runs in bf16 where the CPU has it, and in f32. Its int8 is not here: its quantizer (nncf) needs 17 more
packages. llama.cpp is not here: PyPI has no wheel of it, and a BERT needs a converter of its own.

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
# Not in PACKAGES, because `make bench-backfill` installs those and needs no OpenVINO.
OPENVINO = ["openvino==2026.4.1", "openvino-telemetry==2025.2.0", "numpy==2.4.6"]
PEERS_ONNX, PEERS_OPENVINO = (CLONE / "bench" / f"peers_{name}.py" for name in ("onnx", "openvino"))
RESULTS = CLONE / "target" / "bench"
RANDOM, MINILM = "gte-small-shape", model.MINILM

# Rounds, and runs in each round. The median of the runs is the round's figure; short workloads run more often, against jitter.
WORKLOADS = {"W1": (21, 7), "W2": (11, 3), "W3": (9, 1), "W4": (5, 1)}
# A simple caller runs ONNX Runtime with all 64 in one group. candle would take a minute for each try of this.
GROUPS = {"ort-fp32": (1, 8, 64), "ort-int8": (1, 8, 64), "openvino": (1, 8, 64), "candle": (1, 8)}
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
        self.engine, self.forced, self.padded = engine, forced, padded
        # The process for each number of threads. Most processes run any number; candle needs one process for each.
        self._start, self._processes = start, {}
        self.groups, self.tried, self.rounds, self.cosine = {}, {}, {}, None
        self.about = self.process(1).about
        # Where none is named, the engine chose one for this CPU.
        self.precision = precision or self.about["precision"]

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
        what = {"gte-small": f" {self.kernels}", "openvino": f" {self.precision}"}
        return self.engine + what.get(self.engine, "")

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

    def figure(self, of_rounds, workload: str, threads: int) -> float:
        """`of_rounds` is the median or the minimum."""
        return of_rounds(self.rounds[workload, threads])

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


def environment(packages: list) -> dict:
    return {"PYTHONPATH": str(state.python_packages(packages)), "PYTHONDONTWRITEBYTECODE": "1"}


def openvino(directory: Path):
    """In bf16 and in f32, or in f32 alone where the CPU has no bf16."""
    try:
        python = environment(OPENVINO)
    except Failure as failure:  # PyPI has no wheel for some machines
        say(f"OpenVINO is left out: {failure}")
        return
    for precision in ("bf16", "f32"):
        start = same_for_all([sys.executable, PEERS_OPENVINO, "run", directory, precision], python)
        contender = Contender("openvino", "", start)
        yield contender
        if contender.precision == "f32":
            return


def contenders(directory: Path, programs: dict):
    """ONNX Runtime fp32 first: the others are compared with it."""
    python = environment(PACKAGES)
    graphs = RESULTS / f"{directory.name}-onnx"
    built = subprocess.run([sys.executable, str(PEERS_ONNX), "build", str(directory), str(graphs)],
                           env={**os.environ, **python}, stderr=subprocess.PIPE, encoding="utf-8")
    if built.returncode != 0:
        raise Failure(f"the ONNX graph could not be built:\n{built.stderr.strip()}")
    for engine, precision, graph in (("ort-fp32", "f32", "fp32"), ("ort-int8", "int8", "int8")):
        yield Contender(engine, precision,
                        same_for_all([sys.executable, PEERS_ONNX, "run", graphs / f"{graph}.onnx"], python))
    yield from openvino(directory)
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


def compared(there: list) -> dict:
    """The contenders that ratios refer to, by the name of the ratio in peers.json."""
    wanted = {"ort_fp32": ("ort-fp32", "f32"), "candle": ("candle", "f32"), "openvino_bf16": ("openvino", "bf16")}
    by_kind = {(contender.engine, contender.precision): contender for contender in there}
    return {name: by_kind[kind] for name, kind in wanted.items() if kind in by_kind}


def entries(name: str, directory: Path, there: list, options):
    """What peers.json says of one model."""
    versions = {"gte-small": locked_version("gte-small"), "candle": locked_version("candle-core"),
                "onnxruntime": there[0].about["version"], "python": platform.python_version()}
    versions |= {contender.engine: contender.about["version"] for contender in there if contender.engine == "openvino"}
    common = {"model": name, "weights_sha256": state.sha256(directory / "model.safetensors"), "versions": versions,
              "cpu": cpu()}
    for contender in there:
        for workload in options.workloads:
            for threads in options.threads:
                def ratios(of_rounds, prefix=""):
                    own = contender.figure(of_rounds, workload, threads)
                    return {f"{prefix}ratio_to_{other}": round(peer.figure(of_rounds, workload, threads) / own, 3)
                            for other, peer in compared(there).items()}

                yield {
                    "engine": contender.engine, "precision": contender.precision, "threads": threads,
                    "workload": workload,
                    "median_ms": round(contender.figure(statistics.median, workload, threads), 3),
                    "min_ms": round(contender.figure(min, workload, threads), 3),
                    **ratios(statistics.median), **ratios(min, "min_"),
                    "rounds_ms": [round(ms, 3) for ms in contender.rounds[workload, threads]],
                    "kernels": contender.kernels, "forced": contender.forced,
                    "padded_groups_tried_ms": contender.tried.get((workload, threads)),
                    "padded_group": contender.groups.get((workload, threads)),
                    "least_cosine_to_ort_fp32": round(contender.cosine, 6), **common,
                }


def table(name: str, there: list, options) -> None:
    """Milliseconds and, in parentheses, how many times faster than the contenders that ratios refer to."""
    others = compared(there)
    width = 11 + 6 * len(others) + 3
    for threads in options.threads:
        for said, of_rounds in (("median", statistics.median), ("least", min)):
            print(f"\n{name}, {threads} thread{'s' * (threads > 1)}: {said} ms (ratio to {', to '.join(others)})")
            print("".join([f"{'':<24}", *(f"{workload:>{width}}" for workload in options.workloads),
                           f"{'least cosine':>14}"]))
            for contender in there:
                cells = []
                for workload in options.workloads:
                    ms = contender.figure(of_rounds, workload, threads)
                    ratios = [other.figure(of_rounds, workload, threads) / ms for other in others.values()]
                    cells.append(f"{ms:.2f} ({','.join(f'{ratio:5.2f}' for ratio in ratios)})")
                print("".join([f"{contender.title:<24}", *(f"{cell:>{width}}" for cell in cells),
                               f"{contender.cosine:>14.6f}"]), flush=True)
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
    RESULTS.mkdir(parents=True, exist_ok=True)
    say(f"{cpu()}; load {os.getloadavg()[0]:.1f} before")
    found = []
    for name in options.models:
        say(name)
        directory = model_directory(name, programs)
        there = []
        try:
            for contender in contenders(directory, programs):
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
