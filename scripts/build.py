"""Build the extension for one PostgreSQL and install it there.

    build.py install      build and install
    build.py uninstall    remove the installed files

It needs cargo, a C compiler and PostgreSQL's headers, but no cargo-pgrx. bindgen reads the headers with libclang, which is
fetched from PyPI, pinned, unless LIBCLANG_PATH names one.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import postgres
import state
import versions
from state import CLONE, Failure, say

LIBCLANG = "libclang==18.1.1"
# On macOS bindgen finds the libclang of the command line tools.
LIBCLANG_WHEELS = {
    "linux-x86_64": ("manylinux2010_x86_64", "c533091d8a3bbf7460a00cb6c1a71da93bffe148f172c7d03b1c31fbf8aa2a0b"),
    "linux-aarch64": ("manylinux2014_aarch64", "54dda940a4a0491a9d1532bf071ea3ef26e6dbaf03b5000ed94dd7174e8f9592"),
}
CONTROL = "gte-small.control"


def cargo() -> str:
    """The cargo on PATH, else the one in the home directory: after rustup's installation an open shell has no PATH to it."""
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    found = shutil.which("cargo") or shutil.which(str(home / "bin" / "cargo"))
    if not found:
        raise Failure("there is no cargo, so nothing can be built; install Rust (https://rustup.rs)")
    return found


def _compiler_headers() -> str:
    """The directory of stddef.h: the libclang from PyPI has no compiler headers."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        raise Failure("there is no C compiler, so Rust cannot link; install gcc")
    return subprocess.run([compiler, "-print-file-name=include"], capture_output=True, text=True, check=True).stdout.strip()


def environment(pg_config=None) -> dict:
    """The environment variables for cargo; with pg_config also those for building the extension."""
    env = dict(os.environ)
    cargo_bin = str(Path(cargo()).parent)
    if cargo_bin not in env.get("PATH", "").split(os.pathsep):
        env["PATH"] = env.get("PATH", "") + os.pathsep + cargo_bin
    if pg_config is None:
        return env
    env["PGRX_PG_CONFIG_PATH"] = str(pg_config)
    machine = state.machine()
    if not env.get("LIBCLANG_PATH") and machine in LIBCLANG_WHEELS:
        tag, digest = LIBCLANG_WHEELS[machine]
        unpacked = state.STATE / "libclang"
        if not unpacked.exists():
            say("fetching libclang from PyPI (24 MB) ...")
        state.wheel(LIBCLANG, digest, unpacked, platform=tag)
        native = next(unpacked.glob("**/clang/native"))
        env["LIBCLANG_PATH"] = str(native)
        # bindgen splits this like a shell, hence the quotes.
        include = f'-I"{_compiler_headers()}"'
        env["BINDGEN_EXTRA_CLANG_ARGS"] = " ".join(filter(None, [env.get("BINDGEN_EXTRA_CLANG_ARGS"), include]))
    return env


def _feature(pg_config: Path) -> str:
    """The cargo feature of this PostgreSQL. Fails if Cargo.toml has none."""
    version = postgres.pg_version(pg_config)
    known = re.findall(r"^pg(\d+) *=", (CLONE / "Cargo.toml").read_text(encoding="utf-8"), re.MULTILINE)
    if str(version) not in known:
        raise Failure(f"{pg_config} belongs to PostgreSQL {version}, and gte-small builds for {', '.join(known)}; "
                      "name another with PG_CONFIG=/path/to/pg_config")
    return f"pg{version}"


def build(pg_config: Path, profile: str = "fast") -> Path:
    """Build the extension; returns the library. Cargo does nothing if nothing changed."""
    feature = _feature(pg_config)
    headers = Path(postgres.config(pg_config, "--includedir-server")) / "postgres.h"
    if not headers.is_file():
        raise Failure(f"{headers} is missing, so nothing can be built for this PostgreSQL; install its development "
                      f"files (Debian and Ubuntu: postgresql-server-dev-{feature[2:]})")
    # JSON on standard output names the artifact; progress and messages go to standard error as usual.
    command = [cargo(), "build", "--profile", profile, "-p", "gte-small", "--lib", "--no-default-features",
               "--features", feature, "--message-format=json-render-diagnostics"]
    library = None
    with subprocess.Popen(command, cwd=CLONE, env=environment(pg_config), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            message = json.loads(line) if line.startswith("{") else {}
            if message.get("reason") == "compiler-artifact" and message["target"]["name"] == "gte_small":
                library = next((f for f in message["filenames"] if f.endswith((".so", ".dylib"))), library)
    if process.returncode != 0:
        raise Failure(f"cargo could not build the extension for {pg_config}; what it says above names the cause")
    if library is None:
        raise Failure("cargo built no library gte_small; the crate type cdylib is gone from Cargo.toml")
    return Path(library)


def _files(pg_config: Path) -> dict:
    """The installed place of every file but the library."""
    extension = Path(postgres.config(pg_config, "--sharedir")) / "extension"
    return {extension / file.name: file for file in [CLONE / CONTROL, *versions.files()]}


def sql_fingerprint() -> str:
    """A hash that changes with the extension's SQL, also if the version stays the same."""
    return hashlib.sha256(versions.install_script().encode()).hexdigest()


def library_place(pg_config: Path) -> Path:
    suffix = ".dylib" if sys.platform == "darwin" and postgres.pg_version(pg_config) >= 16 else ".so"
    return Path(postgres.config(pg_config, "--pkglibdir")) / f"gte-small{suffix}"


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()


def _put(source: Path, target: Path, mode: int) -> None:
    """Write a temporary file and rename it: servers keep the library they have mapped, and no reader sees half a file."""
    handle, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as out, open(source, "rb") as file:
            shutil.copyfileobj(file, out, 1 << 20)
        os.chmod(beside, mode)
        os.replace(beside, target)
    except BaseException:
        os.unlink(beside)
        raise


def install(pg_config: Path, library: Path) -> bool:
    """Install library, control and SQL in this PostgreSQL; True if the library changed. Equal files are not written again."""
    place = library_place(pg_config)
    wanted = {place: library, **_files(pg_config)}
    changed = {target: source for target, source in wanted.items() if not _same(target, source)}
    for folder in {target.parent for target in changed}:
        if not os.access(folder, os.W_OK):
            commands = "\n".join(
                f"  sudo install -m {'755' if t == place else '644'} {shlex.quote(str(s))} {shlex.quote(str(t))}"
                for t, s in changed.items())
            raise Failure(f"you may not write to {folder}, so gte-small is built but not installed; "
                          f"install it and repeat the command:\n{commands}")
    for target, source in changed.items():
        _put(source, target, 0o755 if target == place else 0o644)
    return place in changed


def uninstall(pg_config: Path) -> list:
    """Remove the installed files and the SQL of every other version; returns the paths."""
    extension = Path(postgres.config(pg_config, "--sharedir")) / "extension"
    there = [library_place(pg_config), extension / CONTROL, *sorted(extension.glob("gte-small--*.sql"))]
    there = [path for path in there if path.exists()]
    for path in there:
        try:
            path.unlink()
        except PermissionError:
            raise Failure(f"you may not remove {path}; remove it with sudo rm") from None
    return there


def own_pg_config() -> Path:
    """PG_CONFIG, else the pg_config on PATH: the verbs of installing use the user's PostgreSQL, never the embedded one."""
    if not os.environ.get("PG_CONFIG") and not shutil.which("pg_config"):
        raise Failure("there is no pg_config on PATH, so there is no PostgreSQL to install into; "
                      "name one with PG_CONFIG=/path/to/pg_config")
    os.environ.setdefault("PG_CONFIG", "")
    os.environ["PG_CONFIG"] = os.environ["PG_CONFIG"] or shutil.which("pg_config")
    return postgres.find_pg_config()


def is_older(before: str) -> bool:
    return bool(before) and versions.key(before) < versions.key(versions.in_work())


def next_statements(before: str) -> str:
    """What to type after an installation in place of the version `before`; empty if there was none."""
    said = ('Next, in a database, as a superuser:\n'
            '  create extension "gte-small" cascade;\n'
            '  select * from embed_selftest();')
    if is_older(before):
        said = (f"Version {before} was there. Next, in each database that has it, as a superuser:\n"
                '  alter extension "gte-small" update;\n'
                '  select * from refresh_semantic_search();\n'
                "A server with gte-small in shared_preload_libraries must be restarted first. Sessions that are open now keep "
                f"the old library.\n{said.replace('in a database', 'in a database without it')}")
    return said


def main() -> int:
    action = sys.argv[1] if len(sys.argv) == 2 else ""
    pg_config = own_pg_config()
    if action == "install":
        # PROFILE=fast is what the tests build: link-time optimization takes 15 minutes of processor time.
        profile = os.environ.get("PROFILE") or "release"
        if profile not in ("release", "fast"):
            raise Failure(f"PROFILE={profile} is neither release nor fast; leave it out")
        before = versions.default_version(Path(postgres.config(pg_config, "--sharedir")) / "extension" / CONTROL)
        library = build(pg_config, profile)
        try:
            install(pg_config, library)
        except Failure as refused:
            # The repeated command finds the new files, and can't tell what was there before.
            raise Failure(f"{refused}\n{next_statements(before)}" if is_older(before) else str(refused)) from None
        say(f"gte-small {versions.in_work()} is installed in {postgres.config(pg_config, '--version')} ({pg_config}).\n"
            f"{next_statements(before)}\n"
            "The model, once per server:  make install-model")
        if not postgres.has_pgvector(pg_config):
            say("note: pgvector is not there yet, and CREATE EXTENSION needs it; install it (0.8.2 or newer) first")
    elif action == "uninstall":
        removed = uninstall(pg_config)
        say("\n".join(f"removed {path}" for path in removed) or "gte-small was not installed there")
    else:
        raise Failure("usage: build.py install|uninstall")
    return 0


if __name__ == "__main__":
    state.verb(main)
