"""Throw-away servers with the extension, for tests and measurements. All files of a server are removed at its end."""

import contextlib
import os
import shutil
from pathlib import Path

import build
import model
import postgres
import state
from state import Failure
from tally import run

# The data is removed after the run, so it need not survive a crash.
SERVER_SETTINGS = {
    "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "40",
    "max_wal_size": "4GB", "autovacuum": "off", "timezone": "UTC", "lc_messages": "C", "log_checkpoints": "off",
}
# Roles without rights; the tests grant what they need.
ROLES = ["gte_plain", "gte_reader", "gte_owner"]


def _private_copy(pg_config: Path, work: Path) -> Path:
    """A copy of the embedded PostgreSQL by hard links, so that an installation does not change a demo server in use."""
    release = pg_config.parents[1]
    root = release.parents[1]
    copy = work / "postgres"
    shutil.rmtree(copy, ignore_errors=True)

    def link(source, target):
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    for part in [release.relative_to(root), *(path.relative_to(root) for path in root.glob("*.libs"))]:
        shutil.copytree(root / part, copy / part, symlinks=True, copy_function=link)
    for folder, _, _ in os.walk(copy):
        os.chmod(folder, 0o755)
    private = copy / pg_config.relative_to(root)
    build.uninstall(private)
    shutil.rmtree(Path(postgres.config(private, "--sharedir")) / "gte-small", ignore_errors=True)
    return private


def installed(version: int, work: Path) -> Path:
    """Builds the extension and installs it for throw-away servers: in a private copy, or in the PostgreSQL of PG_CONFIG."""
    pg_config = postgres.find_pg_config(version)
    postgres.require_pgvector(pg_config)
    library = build.build(pg_config)
    if not os.environ.get("PG_CONFIG"):
        pg_config = _private_copy(pg_config, work)
    build.install(pg_config, library)
    return pg_config


def tiny_models(work: Path) -> dict:
    """Two small models of random weights; returns their directories by the names that the tests use."""
    models = {"tiny": ["--seed", "1"], "tiny_other": ["--seed", "2", "--f16"]}
    for name, options in models.items():
        command = [build.cargo(), "run", "--quiet", "--profile", "fast", "-p", "gte-engine", "--example", "tiny-model",
                   "--", work / name, *options]
        code, _ = run(command, build.environment())
        if code != 0:
            raise Failure("the tiny model could not be made")
        for path in [work / name, *(work / name).iterdir()]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    return {name: str(work / name) for name in models}


class TestServer:
    """A cluster of its own for tests, with the tests' roles; `described` is what tests/e2e/conftest.py reads."""

    def __init__(self, pg_config: Path, work: Path, models: dict):
        self.work = work
        self.cluster = postgres.Cluster(pg_config, work / "cluster", SERVER_SETTINGS)
        self.described = {**models, "scratch": str(work), "pg_config": str(pg_config),
                          "directory": str(self.cluster.directory), "settings": SERVER_SETTINGS}

    def __enter__(self):
        state.directory(*self.work.relative_to(state.STATE).parts)
        self._destroy_all()
        try:
            self.cluster.create()
            self.cluster.start({"gte_small.model_path": self.described["tiny"]})
            self.cluster.psql("".join(f"create role {role} login;\n" for role in ROLES))
        except BaseException:
            self._destroy_all()
            raise
        return self

    def __exit__(self, *_):
        self._destroy_all()

    def _destroy_all(self) -> None:
        """Destroys its cluster, and the clusters beside it that an interrupted test left."""
        for cluster in postgres.clusters():
            if cluster.directory.parent == self.work:
                cluster.destroy()
        self.cluster.destroy()


@contextlib.contextmanager
def measured(name: str, **settings):
    """A cluster with the extension and MiniLM for a measurement, and a directory; both are removed afterwards."""
    version = int(os.environ.get("PG") or 18)
    with state.lock(name):
        work = state.directory(name)
        try:
            pg_config = installed(version, work)
            wanted = {**SERVER_SETTINGS, "gte_small.model_path": str(model.minilm()), **settings}
            with postgres.Cluster(pg_config, work / "cluster", wanted) as cluster:
                cluster.destroy()
                cluster.create()
                cluster.start()
                cluster.psql('create extension "gte-small" cascade;')
                yield cluster, work
        finally:
            shutil.rmtree(work, ignore_errors=True)
