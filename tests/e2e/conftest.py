"""Fixtures on the server that `scripts/test.py` started.

Each test gets its own database, copied from a template that has the extension, so it sees no objects of other tests. Only
the roles gte_plain, gte_reader and gte_owner are shared. They may log in and have no other rights.
"""

import contextlib
import json
import os
import pathlib
import shutil
import sys

import psycopg
import pytest
from psycopg import sql

CLONE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CLONE / "scripts"))

import postgres  # noqa: E402  scripts/postgres.py
from measure import SOUND_PGVECTOR  # noqa: E402

TEMPLATE = "gte_template"


def pytest_configure(config):
    if "GTE_TEST" not in os.environ:
        pytest.exit("no server to test: run `make test`, or `python3 scripts/test.py --only e2e`", returncode=2)


class Server:
    """The throw-away cluster, its model directories and its databases."""

    def __init__(self, described):
        self.cluster = postgres.Cluster(
            pathlib.Path(described["pg_config"]), pathlib.Path(described["directory"])
        )
        self.tiny = pathlib.Path(described["tiny"])
        self.tiny_other = pathlib.Path(described["tiny_other"])
        self.minilm = pathlib.Path(described["minilm"])
        self.scratch = pathlib.Path(described["scratch"])
        self.settings = described["settings"]
        self.embeddings_sql = CLONE / "sql" / "embeddings.sql"
        self.chunks_sql = CLONE / "sql" / "chunks.sql"
        self.serial = 0

    def connect(self, dbname, user="postgres", **options):
        options.setdefault("autocommit", True)
        # Without psycopg's switch to prepared statements after five runs: the tests choose the protocol.
        options.setdefault("prepare_threshold", None)
        return psycopg.connect(self.cluster.dsn(dbname=dbname, user=user), **options)

    def execute(self, statement, dbname="postgres"):
        with self.connect(dbname) as connection:
            connection.execute(statement)

    def create_database(self, template=TEMPLATE, options=""):
        self.serial += 1
        database = Database(self, f"gte_{os.getpid()}_{self.serial}")
        self.execute(
            sql.SQL("create database {} template {} {}").format(
                sql.Identifier(database.name), sql.Identifier(template), sql.SQL(options)
            )
        )
        return database


    @contextlib.contextmanager
    def another(self, name, settings):
        """A second cluster, with the extension in its database `postgres`, for tests that stop, restart or crash one."""
        directory = self.cluster.directory
        with postgres.Cluster(self.cluster.pg_config, directory.with_name(f"{directory.name}-{name}"),
                              {**self.settings, **settings}) as cluster:
            cluster.destroy()
            cluster.create()
            cluster.start()
            cluster.psql('create extension "gte-small" cascade')
            yield cluster


class Database:
    """One database and its open connections."""

    def __init__(self, server, name):
        self.server = server
        self.name = name
        self.connections = []

    def connect(self, user="postgres", **options):
        connection = self.server.connect(self.name, user, **options)
        self.connections.append(connection)
        return connection

    def psql(self, script, **options):
        return self.server.cluster.psql(script, dbname=self.name, **options)

    def configure(self, setting, value):
        """Sets a parameter for all later connections to this database."""
        self.server.execute(
            sql.SQL("alter database {} set {} = {}").format(
                sql.Identifier(self.name), sql.SQL(setting), sql.Literal(str(value))
            )
        )

    def apply_embeddings_sql(self, connection):
        connection.execute(self.server.embeddings_sql.read_text())

    def drop(self):
        for connection in self.connections:
            connection.close()
        self.server.execute(
            sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(self.name))
        )


@pytest.fixture(scope="session")
def server():
    server = Server(json.loads(os.environ["GTE_TEST"]))
    server.execute(f"drop database if exists {TEMPLATE} with (force)")
    server.execute(f"create database {TEMPLATE} template template0")
    server.execute('create extension "gte-small" cascade', TEMPLATE)
    server.execute(SOUND_PGVECTOR, TEMPLATE)
    return server


@pytest.fixture
def database(server):
    """A new database with vector and gte-small in `public`, on the tiny model."""
    database = server.create_database()
    yield database
    database.drop()


@pytest.fixture
def connection(database):
    return database.connect()


@pytest.fixture
def tutorial(database, connection):
    """A connection to a database that `sql/embeddings.sql` was applied to."""
    database.apply_embeddings_sql(connection)
    return connection


@pytest.fixture
def encoded(server):
    """Makes a database in another encoding, with the extension in it."""
    made = []

    def make(encoding):
        database = server.create_database("template0", f"encoding '{encoding}' lc_collate 'C' lc_ctype 'C'")
        made.append(database)
        connection = database.connect()
        connection.execute('create extension "gte-small" cascade')
        return connection

    yield make
    for database in made:
        database.drop()


@pytest.fixture
def model_copy(server):
    """A copy of the tiny model that a test may change and the server can read."""
    directory = server.scratch / f"model-{server.serial}"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(server.tiny, directory)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def minilm_database(server):
    """One database on the real weights, shared by the tests that only read."""
    database = server.create_database()
    database.configure("gte_small.model_path", server.minilm)
    yield database
    database.drop()


@pytest.fixture(scope="session")
def minilm_connection(minilm_database):
    """One backend on the real weights, because loading them takes longer than most tests."""
    return minilm_database.connect()


@pytest.fixture
def minilm(minilm_connection):
    """The backend on the real weights, without the settings of an earlier test, and without a memo of its texts."""
    minilm_connection.execute("reset all; set gte_small.memo_size = 0")
    return minilm_connection
