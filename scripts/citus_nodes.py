"""Private clusters with Citus: a coordinator and workers, with one database `demo`. Tests and measurements use them.

They need a PostgreSQL of the user's in which Citus, pgvector and gte-small are installed, see `missing`.
"""

import os
import socket
from pathlib import Path

import build
import postgres
from state import Failure

# What each needs, and how it is got.
EXTENSIONS = {
    "citus": "build and install Citus for this PostgreSQL",
    "vector": "build and install pgvector for this PostgreSQL",
    "gte-small": "make install PG_CONFIG={pg_config}",
}
SETTINGS = {
    "listen_addresses": "127.0.0.1", "shared_preload_libraries": "citus,gte-small", "citus.node_conninfo": "sslmode=disable",
    "wal_level": "logical", "max_prepared_transactions": "100", "fsync": "off", "synchronous_commit": "off",
    "citus.enable_statistics_collection": "off", "lc_messages": "C", "max_connections": "60", "track_functions": "all",
}


def missing() -> list:
    """What keeps the clusters from running, a line each; empty if nothing does."""
    if not os.environ.get("PG_CONFIG"):
        return ["PG_CONFIG is not set: name the pg_config of a PostgreSQL with Citus"]
    try:
        pg_config = postgres.find_pg_config()
        extensions = Path(postgres.config(pg_config, "--sharedir")) / "extension"
        lacking = [f"{name} is not installed: {how.format(pg_config=pg_config)}" for name, how in EXTENSIONS.items()
                   if not (extensions / f"{name}.control").is_file()]
        if not lacking and not build.library_place(pg_config).is_file():
            lacking.append(f"the library of gte-small is not installed: make install PG_CONFIG={pg_config}")
    except Failure as failure:
        return [str(failure)]
    return lacking


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    """A cluster that listens on 127.0.0.1, because Citus connects its nodes by TCP. `described` has pg_config, work and model."""

    def __init__(self, number: int, described: dict):
        self.port = free_port()
        self.cluster = postgres.Cluster(
            described["pg_config"], Path(described["work"]) / f"node{number}",
            {**SETTINGS, "port": str(self.port), "cluster_name": f"node{number}", "gte_small.model_path": described["model"]})
        self.cluster.destroy()
        self.cluster.create()
        self.cluster.start()

    def connect(self, user: str = "postgres", dbname: str = "demo"):
        # Not part of Python: the caller has put it on the import path.
        import psycopg
        return psycopg.connect(host="127.0.0.1", port=self.port, dbname=dbname, user=user, autocommit=True, prepare_threshold=None)

    def value(self, statement: str, *values):
        with self.connect() as connection:
            return connection.execute(statement, values or None).fetchone()[0]

    def setup(self) -> None:
        """The database with Citus. The extension comes from the coordinator."""
        with self.connect(dbname="postgres") as connection:
            connection.execute("create database demo")
        with self.connect() as connection:
            connection.execute("create extension citus")


class Nodes:
    """The coordinator and the workers."""

    def __init__(self, described: dict, workers: int = 2):
        self.described = described
        self.all = []
        try:
            for number in range(1 + workers):
                self.all.append(Node(number, described))
        except BaseException:
            self.destroy()
            raise
        self.coordinator, *self.workers = self.all

    def setup(self) -> None:
        for node in self.all:
            node.setup()
        with self.coordinator.connect() as connection:
            connection.execute("select citus_set_coordinator_host('127.0.0.1', %s)", [self.coordinator.port])
            for worker in self.workers:
                connection.execute("select citus_add_node('127.0.0.1', %s)", [worker.port])
            connection.execute('create extension "gte-small" cascade')

    def destroy(self) -> None:
        for node in self.all:
            node.cluster.destroy()
