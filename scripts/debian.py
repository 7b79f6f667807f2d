"""`make test-debian`: install into Debian 12's own PostgreSQL 15 and run the tests there, with those of pg_cron.

It needs root and apt. The packages stay installed. gte-small, pgvector and the tests' servers are removed at the end.
Debian 12 has no pgvector, so its sources are fetched from Debian 13. apt checks their signature and uses a list of
sources of its own, so the system's lists do not change.
"""

import contextlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import build
import postgres
import state
from state import Failure
from tally import Tally, run

PG_CONFIG = Path("/usr/lib/postgresql/15/bin/pg_config")
SERVER, HEADERS, CRON = "postgresql-15", "postgresql-server-dev-15", "postgresql-15-cron"
# dpkg-dev unpacks sources.
PACKAGES = [SERVER, HEADERS, CRON, "dpkg-dev", "make", "gcc"]
PGVECTOR_SUITE = "trixie"
SOURCES = f"""Types: deb-src
URIs: http://deb.debian.org/debian
Suites: {PGVECTOR_SUITE}
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def require_debian() -> None:
    """Fails with a clear error unless root runs this on Debian 12. Changes nothing."""
    if os.geteuid() != 0:
        raise Failure("make test-debian installs packages with apt, which takes root; nothing was done. "
                      "make test needs neither")
    with contextlib.suppress(OSError):
        release = Path("/etc/os-release").read_text(encoding="utf-8")
        if re.search(r"^ID=debian$", release, re.MULTILINE) and re.search(r'^VERSION_ID="12"$', release, re.MULTILINE):
            return
    raise Failure(f"make test-debian is for Debian 12, whose PostgreSQL is 15, and this is {platform.platform()}; "
                  "nothing was done. Elsewhere:  make install installcheck PG_CONFIG=/path/to/pg_config")


def command(*words, **options) -> None:
    """Runs a command with its output on standard error. A failure names the command."""
    words = [str(word) for word in words]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    if subprocess.run(words, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=env, **options).returncode != 0:
        raise Failure(f"{' '.join(words[:2])} failed, so the tests can't run; what it says above names the cause")


def installed_version(package: str) -> str:
    """The version of an installed package; empty if it is not installed."""
    done = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package],
                          capture_output=True, text=True)
    status, _, version = done.stdout.partition(" ")
    return version if status == "installed" else ""


def install_packages() -> None:
    """Installs the missing PACKAGES. An installed server keeps its version and gets headers of the same version."""
    missing = [package for package in PACKAGES if not installed_version(package)]
    if not missing:
        return
    server = installed_version(SERVER)
    # The server's package creates and starts a cluster `main`. It is dropped only if it did not exist before.
    had_main = Path("/etc/postgresql/15/main").exists()
    command("apt-get", "update")
    wanted = [f"{package}={server}" if server and package == HEADERS else package for package in missing]
    command("apt-get", "install", "--yes", "--no-install-recommends", *wanted)
    if not had_main and Path("/etc/postgresql/15/main").exists():
        command("pg_dropcluster", "--stop", "15", "main")


def pgvector_source() -> Path:
    """The directory of pgvector's sources, unpacked and built once."""
    work = state.directory("debian")
    built = sorted(work.glob("pgvector-*/vector.so"))
    if built:
        return built[-1].parent
    for old in work.glob("pgvector*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    (work / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (work / "pgvector.sources").write_text(SOURCES, encoding="utf-8")
    apt = ["apt-get", "-o", f"Dir::Etc::sourcelist={work / 'pgvector.sources'}", "-o", "Dir::Etc::sourceparts=/dev/null",
           "-o", f"Dir::State::lists={work / 'lists'}", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
           # apt's unprivileged user can't write to root's directory.
           "-o", "APT::Sandbox::User=root"]
    command(*apt, "update")
    command(*apt, "source", f"pgvector/{PGVECTOR_SUITE}", cwd=work)
    unpacked = next(path for path in work.glob("pgvector-*") if path.is_dir())
    command("make", "-s", f"PG_CONFIG={PG_CONFIG}", "OPTFLAGS=", "with_llvm=no", cwd=unpacked)
    return unpacked


class Installed:
    """The names of what this script installed. They are on disk, so that the run after a crash removes it too."""

    def __init__(self):
        self._file = state.directory("debian") / "installed"

    def names(self) -> list:
        return self._file.read_text(encoding="utf-8").split() if self._file.is_file() else []

    def will_add(self, name: str) -> None:
        self._file.write_text(" ".join([*self.names(), name]), encoding="utf-8")

    def remove(self) -> None:
        names = self.names()
        if "gte-small" in names:
            build.uninstall(PG_CONFIG)
        if "pgvector" in names:
            command("make", "-s", f"PG_CONFIG={PG_CONFIG}", "with_llvm=no", "uninstall", cwd=pgvector_source())
        self._file.unlink(missing_ok=True)


def install(tally, ours: Installed) -> bool:
    """Installs packages, pgvector and gte-small; returns whether this succeeded."""
    ready = False
    with tally.step("packages of Debian"):
        install_packages()
        # First the leftovers of an interrupted run: an installation found after this belongs to somebody else.
        ours.remove()
        if build.library_place(PG_CONFIG).exists():
            raise Failure(f"gte-small is installed in the PostgreSQL of {PG_CONFIG}, which this would replace;\n"
                          f"  make uninstall PG_CONFIG={PG_CONFIG}")
        ready = True
    if ready and not postgres.has_pgvector(PG_CONFIG):
        ready = False
        with tally.step(f"pgvector of Debian's {PGVECTOR_SUITE}"):
            source = pgvector_source()
            ours.will_add("pgvector")
            command("make", "-s", f"PG_CONFIG={PG_CONFIG}", "with_llvm=no", "install", cwd=source)
            ready = True
    if not ready:
        return False
    with tally.step("make install"):
        ours.will_add("gte-small")
        if make("install", "PROFILE=fast")[0] != 0:
            raise Failure("make install failed; what it says above names the cause")
        return True
    return False


def make(verb: str, *variables: str) -> tuple:
    """Runs a verb of the Makefile for Debian's PostgreSQL and shows its output; returns (exit code, output)."""
    return run(["make", "--no-print-directory", verb, f"PG_CONFIG={PG_CONFIG}", *variables])


def installcheck(tally) -> None:
    """Regression and end-to-end tests, counted from the verb's last line."""
    with tally.step("make installcheck"):
        _, said = make("installcheck")
        counts = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", said, re.MULTILINE)
        if not counts:
            raise Failure("make installcheck ended without counting its tests")
        tally.add(*map(int, counts[-1]))


def main() -> int:
    require_debian()
    tally = Tally()
    with state.lock("test-debian"):
        ours = Installed()
        try:
            if install(tally, ours):
                installcheck(tally)
        finally:
            with tally.step("removing what was installed"):
                ours.remove()
    return tally.finish()


if __name__ == "__main__":
    # SIGTERM cleans up like Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    state.verb(main)
