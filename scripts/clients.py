"""`make test-clients`: the examples and the traps of real client libraries, on a throw-away server with MiniLM.

The libraries come from PyPI, npm and crates.io, in the versions that the examples pin. Each example gets the packages of
its own requirements.txt, package-lock.json or Cargo.lock and no others. Without node and npm, their tests are skipped.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import build
import pytests
import state
import throwaway
from state import CLONE, Failure, say
from tally import Tally, report

EXAMPLES = CLONE / "examples"
HOME = CLONE / "tests" / "clients"
# The oldest Python and node that the pinned packages run on.
PYTHON, NODE = (3, 10), 20


def requirements(example: str) -> list:
    """The pinned packages of an example's requirements.txt, which has also those that they need."""
    lines = [line.split("#")[0].strip() for line in (EXAMPLES / example / "requirements.txt").read_text("utf-8").splitlines()]
    return [line for line in lines if line]


def python_packages() -> dict:
    """The directory of packages of each Python example."""
    return {path.parent.name: str(state.python_packages(requirements(path.parent.name)))
            for path in sorted(EXAMPLES.glob("*/requirements.txt"))}


def node_modules(npm: str) -> dict:
    """The directory with node_modules of each Node example, installed once for each lock file."""
    with state.lock("node"):
        return {path.parent.name: str(_node_modules(npm, path.parent)) for path in sorted(EXAMPLES.glob("*/package-lock.json"))}


def _node_modules(npm: str, example: Path) -> Path:
    files = [example / "package.json", example / "package-lock.json"]
    key = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    place = state.directory("node") / key
    if place.is_dir():
        return place
    say(f"fetching the packages of {example.relative_to(CLONE)} from npm ...")
    with tempfile.TemporaryDirectory(prefix="npm-", dir=state.directory("tmp")) as work:
        made = Path(work) / "packages"
        made.mkdir()
        for file in files:
            shutil.copy(file, made)
        # The scripts of packages are not run: none of these needs one.
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        if subprocess.run(command, cwd=made, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode != 0:
            raise Failure(f"npm ci failed for {example.relative_to(CLONE)}; what npm says above names the cause "
                          "(npm config set registry … names a mirror)")
        os.replace(made, place)
    return place


def rust_programs() -> dict:
    """The directory of the programs of each Rust example: its own `search`, and `traps` of the tests with the same packages.

    They are built in a copy, with a target directory of their own: that of the extension has other profiles.
    """
    target = state.directory("clients-target")
    programs = {}
    for manifest in sorted(EXAMPLES.glob("*/Cargo.toml")):
        name = manifest.parent.name
        copy = state.directory("clients-rust", name)
        for source in [manifest, manifest.with_name("Cargo.lock"), *manifest.parent.glob("src/*.rs")]:
            _copy_changed(source, copy / source.relative_to(manifest.parent))
        _copy_changed(HOME / "traps.rs", copy / "src" / "bin" / "traps.rs")
        # Without debug information the build takes half the time.
        env = {**build.environment(), "CARGO_TARGET_DIR": str(target), "CARGO_PROFILE_DEV_DEBUG": "0"}
        command = [build.cargo(), "build", "--quiet", "--locked", "--bins", "--manifest-path", str(copy / "Cargo.toml")]
        if subprocess.run(command, env=env, cwd=copy, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode != 0:
            raise Failure(f"cargo build failed for {manifest.relative_to(CLONE)}; what it says above names the cause")
        programs[name] = str(target / "debug")
    return programs


def _copy_changed(source: Path, target: Path) -> None:
    """Copies a file unless it is there already: cargo builds again what has a new time."""
    if not target.is_file() or target.read_bytes() != source.read_bytes():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def npm_of_this_machine() -> str:
    """The npm of a machine with node and npm; else empty, and the reason in one line."""
    missing = [name for name in ("node", "npm") if not shutil.which(name)]
    if missing:
        why = f"there is no {' and no '.join(missing)} on PATH"
    else:
        version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        if int(version.lstrip("v").split(".")[0]) >= NODE:
            return shutil.which("npm")
        why = f"node is {version}, and they need {NODE} or newer"
    report(f"skipped: the examples in JavaScript, because {why}")
    return ""


def arguments() -> list:
    """`-k name` for pytest."""
    given = sys.argv[1:]
    if given and (len(given) != 2 or given[0] != "-k"):
        raise Failure("usage: clients.py [-k name]")
    return given


def main() -> int:
    selection = arguments()
    if sys.version_info < PYTHON:
        raise Failure(f"the client libraries need Python {'.'.join(map(str, PYTHON))} or newer, and this is "
                      f"{sys.version.split()[0]}; name another with  make test-clients PYTHON=/path/to/python3")
    tally = Tally()
    described = {}
    with tally.step("packages"):
        described["python"] = python_packages()
        npm = npm_of_this_machine()
        described["node"] = node_modules(npm) if npm else {}
        described["rust"] = rust_programs()
    if tally.failed:
        return tally.finish()
    with tally.step("clients"), throwaway.measured("test-clients", shared_preload_libraries="gte-small") as (cluster, work):
        described.update(pg_config=str(cluster.pg_config), directory=str(cluster.directory), scratch=str(work))
        process = pytests.Process(work / "clients.xml", HOME, *selection, GTE_CLIENTS=json.dumps(described))
        # The tests import the clients too. All examples have the same version of a package.
        process.environment["PYTHONPATH"] = os.pathsep.join([*described["python"].values(), process.environment["PYTHONPATH"]])
        process.count(tally, process.in_foreground())
    return tally.finish()


if __name__ == "__main__":
    # SIGTERM cleans up like Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    state.verb(main)
