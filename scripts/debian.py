"""`make test-debian`: the commands of docs/install.md and the packages in Debian's own PostgreSQL, and every test there,
with those of pg_cron, pgbouncer and the search page in chromium.

    PG=15    Debian 12 (the default)
    PG=17    Debian 13

    debian.py packages    docs/install.md and the packages only, without make installcheck

On the release itself it needs root and apt; the packages of Debian stay installed, and gte-small, pgvector and the tests'
servers are removed at the end. On another Debian it makes a directory with that release by debootstrap and runs there.
Debian 12 has no pgvector, so its sources are fetched from Debian 13.
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
import debian_package
import debian_page
import debian_pgvector
import debian_root
import install_page
import pgbouncer
import postgres
import remains
import state
from debian_package import status
from debian_pgvector import command
from state import Failure
from tally import Tally, run

# Debian's release and its name, by the version of its PostgreSQL.
RELEASES = {15: ("12", "bookworm"), 17: ("13", "trixie")}
# What packages are built with.
TOOLS = ["dpkg-dev", "debhelper", "make", "gcc"]


def wanted_version() -> int:
    named = os.environ.get("PG") or "15"
    if not named.isdigit() or int(named) not in RELEASES:
        raise Failure(f"no Debian of this test has PostgreSQL {named}; PG={' and PG='.join(map(str, RELEASES))} are there")
    return int(named)


def this_release() -> str:
    """The number of this Debian; empty on another system."""
    with contextlib.suppress(OSError):
        text = Path("/etc/os-release").read_text(encoding="utf-8")
        if re.search(r"^ID=debian$", text, re.MULTILINE):
            return "".join(re.findall(r'^VERSION_ID="(\d+)"$', text, re.MULTILINE))
    return ""


def require_debian() -> None:
    """Fails with a clear error unless root runs this on a Debian. Changes nothing."""
    if os.geteuid() != 0:
        raise Failure("make test-debian installs packages with apt, which takes root; nothing was done. "
                      "make test needs neither")
    if not this_release():
        raise Failure(f"make test-debian is for Debian, and this is {platform.platform()}; "
                      "nothing was done. Elsewhere:  make install installcheck PG_CONFIG=/path/to/pg_config")


class Installed:
    """The names of what this script installed. They are on disk, so that the run after a crash removes it too."""

    def __init__(self):
        self._file = state.directory("debian") / "installed"

    def names(self) -> list:
        return self._file.read_text(encoding="utf-8").split() if self._file.is_file() else []

    def will_add(self, name: str) -> None:
        self._file.write_text(" ".join([*self.names(), name]), encoding="utf-8")

    def remove(self, pg_config: Path) -> None:
        names = self.names()
        packages = [name for name in names if name not in ("pgvector", "sources") and status(name).startswith("installed")]
        if packages:
            debian_package.apt("purge", *packages)
        if "sources" in names:
            build.uninstall(pg_config)
            shutil.rmtree(remains.model_place(pg_config), ignore_errors=True)
        if "pgvector" in names:
            debian_pgvector.uninstall(pg_config)
        self._file.unlink(missing_ok=True)


class Test:
    """The steps for one version of PostgreSQL, on its Debian."""

    def __init__(self, tally: Tally, version: int):
        self.tally, self.version, self.ours = tally, version, Installed()
        self.pg_config = Path(f"/usr/lib/postgresql/{version}/bin/pg_config")
        self.made = None

    def run(self, every_test: bool) -> None:
        """All steps; `every_test` includes make installcheck."""
        steps = [("packages of Debian", self.debian_packages), ("pgvector", self.pgvector), ("make deb", self.make_deb)]
        try:
            for title, step in steps:
                failed = self.tally.failed
                with self.tally.step(title):
                    step()
                if self.tally.failed > failed:
                    return
            with self.tally.step("the commands of docs/install.md"):
                debian_page.Commands(self.made, self.ours).run()
            with self.tally.step("install, search, upgrade"):
                self.made.install_search_upgrade()
            if every_test:
                with self.tally.step("make installcheck"):
                    self.counted(["make", "--no-print-directory", "installcheck", f"PG_CONFIG={self.pg_config}", "PG="])
                # Neither depends on the version of PostgreSQL.
                if self.version == 15:
                    pgbouncer.run(self.tally, self.pg_config)
                    with self.tally.step("the search page in chromium"):
                        debian_package.apt("install", "chromium")
                        self.counted([sys.executable, "scripts/test.py", "installcheck", "--only", "browser"], PG_CONFIG=str(self.pg_config))
            with self.tally.step("remove and purge"):
                self.made.purge()
        finally:
            with self.tally.step("removing what was installed"):
                self.ours.remove(self.pg_config)

    def debian_packages(self) -> None:
        """Installs what is missing. An installed server keeps its version and gets headers of the same version."""
        server, headers = f"postgresql-{self.version}", f"postgresql-server-dev-{self.version}"
        wanted = [server, headers, f"postgresql-{self.version}-cron", *TOOLS]
        if self.version != 15:
            wanted.append(f"postgresql-{self.version}-pgvector")
        missing = [package for package in wanted if not status(package).startswith("installed")]
        if missing:
            there = status(server).partition(" ")[2]
            # The server's package creates and starts a cluster `main`. It is dropped only if it did not exist before.
            main = Path(f"/etc/postgresql/{self.version}/main")
            had_main = main.exists()
            command("apt-get", "-q", "-o", "DPkg::Lock::Timeout=600", "update")
            debian_package.apt("install", *(f"{package}={there}" if there and package == headers else package
                                            for package in missing))
            if not had_main and main.exists():
                command("pg_dropcluster", "--stop", self.version, "main")
        # First the leftovers of an interrupted run: an installation found after this belongs to somebody else.
        self.ours.remove(self.pg_config)
        model_place = remains.model_place(self.pg_config)
        if build.library_place(self.pg_config).exists():
            raise Failure(f"gte-small is installed in the PostgreSQL of {self.pg_config}, which this would replace;\n"
                          f"  {build.verb('uninstall', self.pg_config)}")
        if os.path.lexists(model_place):
            raise Failure(f"a model is in {model_place}, which this would replace; move it away")

    def pgvector(self) -> None:
        if not postgres.has_pgvector(self.pg_config):
            self.ours.will_add("pgvector")
            debian_pgvector.install(self.pg_config)

    def make_deb(self) -> None:
        """By the commands of docs/install.md. The model is the one from PyPI, which the hub is not needed for."""
        said = debian_page.shell(install_page.for_root(install_page.block("make deb"), self.version))
        made = [Path(line) for line in said.splitlines() if line.endswith(".deb")]
        if len(made) != 2:
            raise Failure("make deb made no two packages; what it says above names the cause")
        self.made = debian_package.Packages(self.tally, self.pg_config, *made)
        self.ours.will_add(self.made.name)
        self.ours.will_add(self.made.model_name)

    def counted(self, command: list, **variables) -> None:
        """Tests on the installed package, counted from the last line of a command."""
        _, said = run(command, {**os.environ, **variables})
        counts = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", said, re.MULTILINE)
        if not counts:
            raise Failure(f"{command[-1]} ended without counting its tests")
        self.tally.add(*map(int, counts[-1]))


def elsewhere(version: int) -> int:
    """The same in a directory with the other release, which has the sources and this system's Rust."""
    root = debian_root.Root(RELEASES[version][1])
    root.make()
    root.copy_sources()
    binds, variables = debian_root.toolchain()
    passed = {name: value for name, value in os.environ.items()
              if name.startswith(("PIP_", "CARGO_", "RUST")) or name.lower().endswith("_proxy")}
    words = ["python3", f"{debian_root.SOURCES}/scripts/debian.py", *sys.argv[1:]]
    return subprocess.run(root.command(words, binds=binds, **{**passed, **variables, "PG": str(version)}),
                          stdin=subprocess.DEVNULL).returncode


def main() -> int:
    version = wanted_version()
    require_debian()
    # The verbs that run below choose by PG_CONFIG.
    os.environ.pop("PG_CONFIG", None)
    with state.lock("test-debian"):
        if this_release() != RELEASES[version][0]:
            return elsewhere(version)
        tally = Tally()
        Test(tally, version).run(every_test=sys.argv[1:] != ["packages"])
    return tally.finish()


if __name__ == "__main__":
    # SIGTERM cleans up like Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    state.verb(main)
