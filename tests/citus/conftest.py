"""Three clusters that scripts/citus.py asks for: a coordinator and two workers, with one database `demo`.

Tables are the tests' own, so each test names its table after itself.
"""

import json
import os
import pathlib
import socket
import sys

import psycopg
import pytest

CLONE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CLONE / "scripts"))

import postgres  # noqa: E402  scripts/postgres.py

SETTINGS = {
    "listen_addresses": "127.0.0.1", "shared_preload_libraries": "citus,gte-small", "citus.node_conninfo": "sslmode=disable",
    "wal_level": "logical", "max_prepared_transactions": "100", "fsync": "off", "synchronous_commit": "off",
    "citus.enable_statistics_collection": "off", "lc_messages": "C", "max_connections": "60", "track_functions": "all",
}


def pytest_configure(config):
    if "GTE_CITUS" not in os.environ:
        pytest.exit("no clusters to test: run `make test-citus PG_CONFIG=...`", returncode=2)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    """A cluster that listens on 127.0.0.1, because Citus connects its nodes by TCP."""

    def __init__(self, number, described):
        self.port = free_port()
        self.cluster = postgres.Cluster(
            described["pg_config"], pathlib.Path(described["work"]) / f"node{number}",
            {**SETTINGS, "port": str(self.port), "cluster_name": f"node{number}", "gte_small.model_path": described["model"]})
        self.cluster.destroy()
        self.cluster.create()
        self.cluster.start()

    def connect(self, user="postgres", dbname="demo"):
        return psycopg.connect(host="127.0.0.1", port=self.port, dbname=dbname, user=user, autocommit=True, prepare_threshold=None)

    def value(self, statement, *values):
        with self.connect() as connection:
            return connection.execute(statement, values or None).fetchone()[0]


class Nodes:
    """The coordinator and the workers."""

    def __init__(self, described):
        self.all = [Node(number, described) for number in range(3)]
        self.coordinator, *self.workers = self.all

    def setup(self):
        for node in self.all:
            with node.connect(dbname="postgres") as connection:
                connection.execute("create database demo")
                connection.execute("create role citus_owner login")
            with node.connect() as connection:
                connection.execute("create extension citus")
                connection.execute("grant create on schema public to citus_owner")
        with self.coordinator.connect() as connection:
            connection.execute("select citus_set_coordinator_host('127.0.0.1', %s)", [self.coordinator.port])
            for worker in self.workers:
                connection.execute("select citus_add_node('127.0.0.1', %s)", [worker.port])
            connection.execute('create extension "gte-small" cascade')

    def destroy(self):
        for node in self.all:
            node.cluster.destroy()


@pytest.fixture(scope="session")
def nodes():
    made = Nodes(json.loads(os.environ["GTE_CITUS"]))
    try:
        made.setup()
        yield made
    finally:
        made.destroy()


class Client:
    """A connection to the coordinator that keeps its notices."""

    def __init__(self, connection):
        self.connection = connection
        self.notices = []
        # The fields are copied: a notice is gone with the result that it came with.
        connection.add_notice_handler(lambda n: self.notices.append((n.severity, n.message_primary, n.message_hint or "")))

    def run(self, statement, *values):
        return self.connection.execute(statement, values or None)

    def rows(self, statement, *values):
        return self.run(statement, *values).fetchall()

    def value(self, statement, *values):
        return self.run(statement, *values).fetchone()[0]

    def column(self, statement, *values):
        return [row[0] for row in self.run(statement, *values)]


@pytest.fixture
def db(nodes):
    with nodes.coordinator.connect() as connection:
        yield Client(connection)


@pytest.fixture
def owner(nodes):
    """As a role without rights that owns its tables."""
    with nodes.coordinator.connect(user="citus_owner") as connection:
        yield Client(connection)
