"""The commands of docs/install.md on a Debian, as the page has them and with `sudo` left out.

`make test-debian` installs, enables and removes by the page, with the packages and from the sources. It does not run what
fetches from the archive of PostgreSQL, from rustup and by git: not every machine of the tests reaches them.
"""

import os
import shutil
from pathlib import Path

import deb
import debian_package
import docs_page
import install_page
import model
import postgres
import remains
import state
from debian_package import status
from state import CLONE

DATABASE = "page"
# What adds the archive of PostgreSQL to those of apt.
PGDG_SCRIPT = Path("/usr/share/postgresql-common/pgdg/apt.postgresql.org.sh")


def shell(script: str, cwd: Path = CLONE) -> str:
    """With the profile of the tests and the model from PyPI."""
    return install_page.run(script, cwd, PROFILE="fast", MODEL=model.MINILM)


class Commands:
    """The page's ways to a first search and back, in the PostgreSQL of these packages."""

    def __init__(self, packages, ours):
        self.packages, self.ours = packages, ours
        self.pg_config, self.check = packages.pg_config, packages.check
        self.version = postgres.pg_version(self.pg_config)

    def run(self) -> None:
        with self.check("apt knows the packages that docs/install.md names"):
            self.names()
        with self.check("by docs/install.md: the packages are installed, a search, and the packages are purged"):
            self.with_packages()
        with self.check("by docs/install.md: built and installed from source, a search, and uninstalled"):
            self.from_source()

    def names(self) -> None:
        """Every package but pgvector's, which not every Debian has, and our own."""
        lines = [line for commands in install_page.blocks(install_page.text()) for line in commands
                 if "apt-get install" in line and "./" not in line and "-pgvector" not in line]
        assert len(lines) >= 4, lines
        shell("apt-get update\n" + install_page.for_root(lines, self.version, **{"apt-get install": "apt-get install --simulate"}))
        assert PGDG_SCRIPT.is_file() and str(PGDG_SCRIPT) in install_page.text(), PGDG_SCRIPT

    def with_packages(self) -> None:
        written = {"gte-small-model_1.0-1_all.deb": self.packages.model.name, "amd64": self.packages.extension.stem.rpartition("_")[2]}
        shell(install_page.for_root(install_page.block("apt-get install -y ./"), self.version, **written), cwd=deb.DIST)
        for name in (self.packages.name, self.packages.model_name):
            assert status(name).startswith("installed "), (name, status(name))
        files = debian_package.files(self.packages.name) + debian_package.files(self.packages.model_name)
        self.first_search()
        shell(install_page.for_root(install_page.block("apt-get purge"), self.version, **{"gte-small-model": self.packages.model_name}))
        left = [path for path in files if os.path.lexists(path)]
        assert files and not left, left

    def from_source(self) -> None:
        self.ours.will_add("sources")
        shell(install_page.for_root(install_page.block("make build PG_CONFIG="), self.version))
        self.first_search()
        said = shell(install_page.for_root(install_page.block("make uninstall"), self.version))
        # The page says that the model stays, and that the command names what removes it.
        place = remains.model_place(self.pg_config)
        assert place.is_dir() and f"sudo rm -r {place}" in said, said
        shutil.rmtree(place)

    def first_search(self) -> None:
        """The statements of the page in a new database, and what they print."""
        with postgres.Cluster(self.pg_config, state.directory("debian") / "page") as cluster:
            cluster.destroy()
            cluster.create()
            cluster.start()
            cluster.psql(f"create database {DATABASE}")
            results = docs_page.Page(cluster, DATABASE, CLONE).run(install_page.section("Create the extension"))
            assert results and not any(result.problem or result.not_run for result in results), results
