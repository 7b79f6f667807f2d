"""What a build or an installation needs: each missing thing is one line, with the command that gets it.

The checks read files and ask programs for their versions. They download and build nothing. All that is missing is said in
one message, so that a user gets everything at once.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import postgres
import state
import versions
from state import CLONE, Failure

RUSTUP = "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
# CVE-2026-3172 affects 0.6.0 to 0.8.1; 0.8.3 and 0.8.4 mended HNSW indexes that became corrupt.
PGVECTOR_NEEDED, PGVECTOR_GOOD = "0.8.0", "0.8.4"
# 14 had its last release in November 2026.
OLDEST_POSTGRES = 15
# The first minor release whose headers have what the library uses (GUC_ALLOW_IN_PARALLEL), by major version: those of
# November 2024. Of 18 every release has it.
MINOR = {15: "15.9", 16: "16.5", 17: "17.1"}
OS_RELEASE = Path("/etc/os-release")
DEBIAN_SERVERS = Path("/usr/lib/postgresql")
# PostgreSQL's own archive for Debian and Ubuntu: the lists of apt that can name it, and the commands that add it.
APT_LISTS = Path("/etc/apt")
PGDG = ("sudo apt-get install -y postgresql-common ca-certificates && "
        "sudo /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y")

# The packages by the word of the check; {0} is PostgreSQL's major version.
PACKAGES = {
    "apt": {"headers": "postgresql-server-dev-{0}", "server": "postgresql-{0}", "gcc": "gcc libc6-dev", "libc": "libc6-dev",
            "pip": "python3-pip", "pgvector": "postgresql-{0}-pgvector", "minor": "postgresql-{0} postgresql-server-dev-{0}"},
    "dnf": {"headers": "postgresql{0}-devel", "server": "postgresql{0}-server", "gcc": "gcc glibc-devel",
            "libc": "glibc-devel", "pip": "python3-pip", "pgvector": "pgvector_{0}",
            "minor": "postgresql{0}-server postgresql{0}-devel"},
}


def _manager() -> str:
    """This system's program for packages: apt, dnf, or empty if it is not in the table."""
    text = OS_RELEASE.read_text(encoding="utf-8") if OS_RELEASE.is_file() else ""
    like = set(" ".join(re.findall(r'^ID(?:_LIKE)?="?([^"\n]*)', text, re.MULTILINE)).split())
    return "apt" if {"debian", "ubuntu"} & like else "dnf" if {"fedora", "rhel", "centos"} & like else ""


def package_command(word: str, version="", update=False) -> str:
    """The command that installs a package here; on a system that is not in the table, its name on Debian.

    `update` fetches the lists first, for a package that is there and too old.
    """
    manager = _manager()
    names = PACKAGES[manager or "apt"][word].format(version)
    if manager == "apt":
        return f"{'sudo apt-get update && ' if update else ''}sudo apt-get install -y {names}"
    return f"sudo dnf install -y {names}" if manager else f"install what Debian calls {names}"


def _output(*words) -> str:
    """The standard output of a program; empty if it can't run or fails."""
    try:
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, errors="replace")
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


# --- Rust ---


def find_cargo() -> str:
    """The cargo on PATH, else the one in the home directory; empty without both.

    After rustup's installation an open shell has no PATH to the second.
    """
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    return shutil.which("cargo") or shutil.which(str(home / "bin" / "cargo")) or ""


def wanted_rust() -> str:
    """The oldest Rust that builds this, from Cargo.toml."""
    return re.search(r'^rust-version = "([\d.]+)"', (CLONE / "Cargo.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]


def rust() -> list:
    wanted, cargo = wanted_rust(), find_cargo()
    if not cargo:
        return [f"cargo is missing (Rust {wanted} or newer):  {RUSTUP}"]
    rustc = shutil.which("rustc", path=str(Path(cargo).parent)) or shutil.which("rustc")
    said = _output(rustc, "-vV") if rustc else ""
    found = re.search(r"^release: (\S+)", said, re.MULTILINE)
    if not found:
        return [f"rustc is missing beside {cargo} (Rust {wanted} or newer):  {RUSTUP}"]
    missing = []
    if versions.key(found[1])[:3] < versions.key(wanted):
        rustup = shutil.which("rustup", path=str(Path(cargo).parent)) or shutil.which("rustup")
        missing.append(f"rustc is {found[1]} and must be {wanted} or newer:  {'rustup update stable' if rustup else RUSTUP}")
    if re.search(r"^host: \S*musl", said, re.MULTILINE):
        missing.append("Rust's host is musl, and the extension is built for glibc only:  use a system with glibc, for "
                       "example the container of the Dockerfile (docker build -t gte-small .)")
    return missing


# --- C ---


def find_compiler() -> str:
    return shutil.which("gcc") or shutil.which("cc") or ""


def c_compiler() -> list:
    compiler = find_compiler()
    if not compiler:
        return [f"gcc is missing:  {package_command('gcc')}"]
    # A compiler that finds its start file answers with the path, else with the bare name.
    if sys.platform == "linux" and os.sep not in _output(compiler, "-print-file-name=crt1.o"):
        return [f"the C library's development files are missing:  {package_command('libc')}"]
    return []


def pip() -> list:
    """pip, or ensurepip, which makes one. Only for what is fetched from PyPI."""
    if any(_output(*words, "--version") for words in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"])):
        return []
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return []
    return [f"pip is missing, and so is venv, which could make one:  {package_command('pip')}"]


def libclang() -> list:
    """bindgen reads PostgreSQL's headers with libclang, which comes from PyPI if LIBCLANG_PATH names none."""
    named = os.environ.get("LIBCLANG_PATH")
    if named:
        there = Path(named).is_file() or any(Path(named).glob("libclang*"))
        return [] if there else [f"LIBCLANG_PATH={named} has no libclang:  leave it out, and it is fetched from PyPI"]
    return [] if (state.STATE / "libclang").is_dir() else pip()


# --- PostgreSQL ---


def _likely_version() -> str:
    """The newest PostgreSQL that Debian's packages have installed here."""
    found = [path.name for path in DEBIAN_SERVERS.glob("[0-9]*") if path.name.isdigit()]
    return max(found, key=int, default="all")


def pg_config() -> list:
    """PG_CONFIG or the pg_config on PATH."""
    named = os.environ.get("PG_CONFIG", "")
    if named and not shutil.which(named):
        of_debian = re.fullmatch(rf"{re.escape(str(DEBIAN_SERVERS))}/(\d+)/bin/pg_config", named)
        if of_debian and not Path(named).exists():
            return [f"PG_CONFIG={named} is missing:  {package_command('headers', of_debian[1])}"]
        return [f"PG_CONFIG={named} is not a program:  name a pg_config, for example "
                f"PG_CONFIG={DEBIAN_SERVERS}/17/bin/pg_config"]
    if not named and not shutil.which("pg_config"):
        return [f"pg_config is missing:  {package_command('headers', _likely_version())}  "
                "(or name one with PG_CONFIG=/path/to/pg_config)"]
    return []


def known_versions() -> list:
    """The versions of PostgreSQL that Cargo.toml has a feature for and that are not past their end."""
    features = re.findall(r"^pg(\d+) *=", (CLONE / "Cargo.toml").read_text(encoding="utf-8"), re.MULTILINE)
    return [int(version) for version in features if int(version) >= OLDEST_POSTGRES]


def minor_release(program: Path) -> str:
    """The minor release of the headers, `15.9`; that of pg_config without them. Empty for a version under development."""
    config = Path(postgres.config(program, "--includedir-server")) / "pg_config.h"
    said = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    # Some systems divide this file by architecture, and it only includes the other.
    found = re.search(r'^#define PG_VERSION "(\d+\.\d+)', said, re.MULTILINE)
    found = found or re.search(r"PostgreSQL (\d+\.\d+)", postgres.config(program, "--version"))
    return found[1] if found else ""


def headers(program: Path) -> list:
    version = postgres.pg_version(program)
    if version not in known_versions():
        return [f"{program} belongs to PostgreSQL {version}, and gte-small builds for "
                f"{', '.join(map(str, known_versions()))}:  name another with PG_CONFIG=/path/to/pg_config"]
    missing, there, oldest = [], minor_release(program), MINOR.get(version)
    if oldest and there and versions.key(there) < versions.key(oldest):
        missing.append(f"PostgreSQL is {there} and must be {oldest} or newer:  {package_command('minor', version, update=True)}")
    place = Path(postgres.config(program, "--includedir-server")) / "postgres.h"
    if not place.is_file():
        missing.append(f"PostgreSQL's server headers are missing ({place}):  {package_command('headers', version)}")
    return missing


def server(program: Path, places) -> list:
    """The server of this PostgreSQL: its headers come without it."""
    absent = sorted(str(path) for path in places if not path.is_dir())
    if not absent:
        return []
    version = postgres.pg_version(program)
    return [f"the server of PostgreSQL {version} is missing ({' and '.join(absent)}):  {package_command('server', version)}"]


def pgvector_version(program: Path) -> str:
    """The version that CREATE EXTENSION vector would install; empty without pgvector."""
    return versions.default_version(Path(postgres.config(program, "--sharedir")) / "extension" / "vector.control")


def _has_pgdg() -> bool:
    """Whether apt reads PostgreSQL's own archive."""
    lists = [APT_LISTS / "sources.list", *APT_LISTS.glob("sources.list.d/*.list"), *APT_LISTS.glob("sources.list.d/*.sources")]
    return any("apt.postgresql.org" in path.read_text(encoding="utf-8", errors="replace") for path in lists if path.is_file())


def _how_to_get_pgvector(version: int) -> str:
    """Debian 12 has no pgvector, and Debian 13 an old one, so the command adds PostgreSQL's own archive."""
    command = package_command("pgvector", version, update=True)
    if _manager() == "apt" and not _has_pgdg():
        command = f"sudo apt-get update && {PGDG} && {package_command('pgvector', version)}"
    return f"{command}  (docs/install.md#pgvector says how from its sources)"


def pgvector(program: Path) -> list:
    """pgvector of this PostgreSQL: there, and with what the search functions use."""
    version, there = postgres.pg_version(program), pgvector_version(program)
    how = _how_to_get_pgvector(version)
    if not there:
        return [f"pgvector is missing in the PostgreSQL of {program}:  {how}"]
    if versions.key(there) < versions.key(PGVECTOR_NEEDED):
        return [f"pgvector is {there} and must be {PGVECTOR_NEEDED} or newer:  {how}"]
    return []


def pgvector_note(program: Path) -> str:
    """Advice for a pgvector that works and has known defects; empty otherwise."""
    there = pgvector_version(program)
    if not there or versions.key(there) >= versions.key(PGVECTOR_GOOD):
        return ""
    return (f"note: pgvector is {there}, and {PGVECTOR_GOOD} mended defects of its indexes; upgrade it when you can:  "
            f"{_how_to_get_pgvector(postgres.pg_version(program))}; then in each database:  alter extension vector update;")


# --- the message ---


def refuse(missing: list, undone: str) -> None:
    """Fails with all that is missing, if anything is. `undone` is the consequence."""
    if missing:
        raise Failure(f"{undone}, because something is missing:\n" + "\n".join(f"  {line}" for line in missing))


def build_tools() -> list:
    """What every build of the extension needs, beside PostgreSQL."""
    return [*rust(), *c_compiler(), *libclang()]
