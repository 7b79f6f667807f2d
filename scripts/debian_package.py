"""The tests of the Debian packages, on the system: install, search, upgrade, remove the model, purge.

An older package is made of the new one: it has the SQL of version 0.1.0, and the library, which still serves it.
"""

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import deb
import postgres
import remains
import state
import versions
from debian_pgvector import command
from state import Failure
from tally import Tally, report

OLD = "0.1.0"
DATABASE = "packages"
# Both versions understand these statements.
TABLE = """
create extension "gte-small" cascade;
create table notes (id int generated always as identity primary key, content text);
select enable_semantic_search('notes');
insert into notes (content) values ('Backups run every night at two.'), ('The office dog is called Ada.'),
  ('Invoices are due within thirty days.');
"""
SEARCH = "select content from query_notes(embed('when do I have to pay?'), 0, 1)"
FOUND = "Invoices are due within thirty days."


def older(package: Path) -> Path:
    """The same package as version 0.1.0, which has only that version's SQL."""
    with tempfile.TemporaryDirectory(dir=state.directory("tmp")) as work:
        tree = Path(work) / "tree"
        command("dpkg-deb", "--raw-extract", package, tree)
        for path in tree.rglob("gte-small--*.sql"):
            if path.name != f"gte-small--{OLD}.sql":
                path.unlink()
        control = next(tree.rglob("gte-small.control"))
        control.write_text(control.read_text(encoding="utf-8").replace(f"'{versions.in_work()}'", f"'{OLD}'"), encoding="utf-8")
        about = tree / "DEBIAN" / "control"
        about.write_text(about.read_text(encoding="utf-8").replace(f"Version: {versions.in_work()}-", f"Version: {OLD}-"),
                         encoding="utf-8")
        (tree / "DEBIAN" / "md5sums").unlink()
        target = package.with_name(package.name.replace(versions.in_work(), OLD))
        command("dpkg-deb", "--root-owner-group", "--build", tree, target)
        return target


def apt(*words) -> None:
    command("apt-get", "--yes", "-q", "-o", "DPkg::Lock::Timeout=600", "--no-install-recommends", *words)


def status(package: str) -> str:
    """dpkg's word for a package, and its version: `installed 0.2.0-1`; empty if dpkg does not know it."""
    done = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def files(package: str) -> list:
    """The paths of a package's own files."""
    listed = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True).stdout.splitlines()
    return [path for path in listed if "gte-small" in path]


class Packages:
    """The packages of one PostgreSQL and a server on which each step is tried."""

    def __init__(self, tally: Tally, pg_config: Path, extension: Path, model: Path):
        self.tally, self.pg_config, self.extension, self.model = tally, pg_config, extension, model
        self.name = deb.extension_words(pg_config)["PACKAGE"]
        self.model_name = model.name.partition("_")[0]

    @contextlib.contextmanager
    def check(self, title: str):
        """One test: it passes unless the block fails."""
        try:
            yield
        except (Failure, AssertionError, OSError) as failure:
            report(f"FAILED {title}: {failure}")
            self.tally.add(0, 1)
        else:
            report(f"ok     {title}")
            self.tally.add(1, 0)

    def value(self, cluster, statement: str) -> str:
        return cluster.psql(statement, dbname=DATABASE, args=("-At", "-q")).stdout.strip()

    def install_search_upgrade(self) -> None:
        """Leaves the extension's new package installed, without a model."""
        old = older(self.extension)
        with self.check("the package of 0.1.0 and that of the model are installed"):
            apt("install", old, self.model)
            assert status(self.name).startswith(f"installed {OLD}-"), status(self.name)
            assert not Path(f"/usr/lib/postgresql/{postgres.pg_version(self.pg_config)}/lib/bitcode/gte-small").exists()
        with postgres.Cluster(self.pg_config, state.directory("debian") / "packages") as cluster:
            cluster.destroy()
            cluster.create()
            cluster.start()
            cluster.psql(f"create database {DATABASE}")
            self._on(cluster)

    def _on(self, cluster) -> None:
        with self.check("a search with version 0.1.0, the model from its package"):
            cluster.psql(TABLE, dbname=DATABASE)
            found = self.value(cluster, SEARCH)
            assert found == FOUND, found
        with self.check("an upgrade of the package, with a session that warns"):
            apt("install", self.extension)
            assert status(self.name) == f"installed {deb.extension_words(self.pg_config)['VERSION']}", status(self.name)
            said = cluster.psql(SEARCH, dbname=DATABASE)
            assert FOUND in said.stdout, said.stdout
            assert 'ALTER EXTENSION "gte-small" UPDATE' in said.stderr.replace("alter extension", "ALTER EXTENSION").replace(
                "update", "UPDATE"), said.stderr
        with self.check("an update of the database, and a search"):
            cluster.psql('alter extension "gte-small" update; select * from refresh_semantic_search();', dbname=DATABASE)
            version = self.value(cluster, "select extversion from pg_extension where extname = 'gte-small'")
            assert version == versions.in_work(), version
            found = self.value(cluster, SEARCH)
            assert found == FOUND, found
        with self.check("a new database has the new version"):
            cluster.psql("create database fresh")
            cluster.psql(TABLE, dbname="fresh")
            found = cluster.psql(SEARCH, dbname="fresh", args=("-At",)).stdout.strip()
            assert found == FOUND, found
        with self.check("without the package of the model a search says what is missing"):
            apt("purge", self.model_name)
            place = remains.model_place(self.pg_config)
            assert place.is_symlink() and not place.exists(), place
            said = cluster.psql(SEARCH, dbname=DATABASE, check=False)
            assert said.returncode != 0 and "gte_small.model_path" in said.stderr, said.stderr

    def purge(self) -> None:
        """The package goes, with a warning if a configuration preloads the library."""
        version = postgres.pg_version(self.pg_config)
        ours = files(self.name)
        preloading = Path(f"/etc/postgresql/{version}/gte_small_test/postgresql.conf")
        preloading.parent.mkdir(parents=True)
        line = "shared_preload_libraries = 'gte-small'"
        preloading.write_text(f"{line}\n", encoding="utf-8")
        try:
            with self.check("a purge warns of a server that preloads the library"):
                done = subprocess.run(["apt-get", "purge", "--yes", self.name], capture_output=True, text=True)
                said = done.stdout + done.stderr
                assert done.returncode == 0 and "take gte-small out" in said and line in said, said
        finally:
            preloading.unlink()
            preloading.parent.rmdir()
        with self.check("a purge leaves no file"):
            left = [path for path in ours if os.path.lexists(path)]
            assert ours and not left and status(self.name) in ("", "not-installed"), (left, status(self.name))
