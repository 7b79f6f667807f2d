"""Fixtures on the server that `scripts/clients.py` started. Each test gets its own database, on the weights of MiniLM."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import psycopg
import pytest
from psycopg import sql

CLONE = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = CLONE / "examples"
sys.path.insert(0, str(CLONE / "scripts"))

import postgres  # noqa: E402  scripts/postgres.py
import state  # noqa: E402  scripts/state.py
from uri import uri  # noqa: E402  scripts/uri.py

TEMPLATE, CROWD = "gte_template", "gte_crowd"
CROWD_ROWS = 1000


def pytest_configure(config):
    if "GTE_CLIENTS" not in os.environ:
        pytest.exit("no server to test: run `make test-clients`", returncode=2)


class Database:
    """A database, and how clients reach it."""

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name
        self.uri = uri(cluster, name)

    def connect(self, **options):
        return psycopg.connect(self.uri, **{"autocommit": True, **options})

    def value(self, statement, parameters=None):
        """The single value of a statement in a connection of its own."""
        with self.connect() as connection:
            return connection.execute(statement, parameters).fetchone()[0]

    def scans(self):
        """The scans of the HNSW indexes of this database so far."""
        return self.value("""
            select coalesce(sum(s.idx_scan), 0)::int from pg_stat_user_indexes s
              join pg_class c on c.oid = s.indexrelid join pg_am m on m.oid = c.relam where m.amname = 'hnsw'""")

    @contextlib.contextmanager
    def scanning(self, times):
        """Asserts that the block scans the index so often. It ends its sessions: a session reports its scans when it ends."""
        before = self.scans()
        yield
        deadline = time.monotonic() + 30
        others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        while self.value(others) > 0:
            assert time.monotonic() < deadline, "a session is left open"
            time.sleep(0.02)
        assert self.scans() == before + times


class Server:
    def __init__(self, described):
        self.described = described
        self.cluster = postgres.Cluster(pathlib.Path(described["pg_config"]), pathlib.Path(described["directory"]))
        self.serial = 0

    def execute(self, statement, dbname="postgres"):
        with psycopg.connect(uri(self.cluster, dbname), autocommit=True) as connection:
            return connection.execute(statement)

    def create(self, template=TEMPLATE):
        self.serial += 1
        name = f"clients_{os.getpid()}_{self.serial}"
        self.execute(sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template)))
        return Database(self.cluster, name)

    def drop(self, database):
        self.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(database.name)))


@pytest.fixture(scope="session")
def server():
    server = Server(json.loads(os.environ["GTE_CLIENTS"]))
    for name in (TEMPLATE, CROWD):
        server.execute(f"drop database if exists {name} with (force)")
    server.execute(f"create database {TEMPLATE} template template0")
    server.execute('create extension "gte-small" cascade', TEMPLATE)
    return server


@pytest.fixture(scope="session")
def crowded(server):
    """A template with the table `crowd`: rows with random vectors, and one row with its text's own vector."""
    server.execute(f"create database {CROWD} template {TEMPLATE}")
    with psycopg.connect(uri(server.cluster, CROWD), autocommit=True) as connection:
        connection.execute("create table crowd (id int generated always as identity primary key, content text, kind int)")
        connection.execute("select enable_semantic_search('crowd', with_index => false)")
        connection.execute("""
            insert into crowd (content, kind, embedding)
            select 'row ' || i, i %% 10, (select array_agg(random() - 0.5) from generate_series(1, 384) where i > 0)::vector
              from generate_series(1, %s) i""", [CROWD_ROWS])
        connection.execute("insert into crowd (content, kind) values ('Invoices are due within thirty days.', 1)")
        connection.execute("select enable_semantic_search('crowd')")
        connection.execute("vacuum analyze crowd")
    return CROWD


@pytest.fixture
def database(server):
    """A new database with vector and gte-small in `public`."""
    database = server.create()
    yield database
    server.drop(database)


@contextlib.contextmanager
def _crowd(server, crowded):
    database = server.create(crowded)
    # The table is small, so without this setting the planner may read all of it.
    server.execute(sql.SQL("alter database {} set enable_seqscan = off").format(sql.Identifier(database.name)))
    yield database
    server.drop(database)


@pytest.fixture(scope="session")
def crowd(server, crowded):
    """One database with the table `crowd`, for tests that only read."""
    with _crowd(server, crowded) as database:
        yield database


@pytest.fixture
def own_crowd(server, crowded):
    """A new database with the table `crowd`."""
    with _crowd(server, crowded) as database:
        yield database


@pytest.fixture(scope="session")
def run(server):
    """Runs an example, or another program with its packages, and returns the lines that it prints."""
    return Programs(server.described).run


@pytest.fixture
def javascript(run):
    """Runs JavaScript with the packages of an example, and returns what it passes to `tell`."""
    def execute(example, code, **variables):
        told = "const told = [];\nconst tell = (value) => told.push(value);\n"
        code = f"{told}{code}\nconsole.log(JSON.stringify(told));"
        return json.loads(run(example, "--input-type=module", "-e", code, **variables)[-1])

    return execute


class Programs:
    """The programs of the examples: `search.py`, `search.mjs` or the one of Rust, unless others are named."""

    def __init__(self, described):
        self.described = described

    def run(self, example, *words, **variables):
        command, cwd, more = self._command(example, *words)
        done = subprocess.run(command, cwd=cwd, env={**state.environment(), **more, **variables}, stdin=subprocess.DEVNULL,
                              capture_output=True, encoding="utf-8", timeout=120)
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        assert done.stderr == "", done.stderr
        return done.stdout.splitlines()

    def _command(self, example, *words):
        folder = EXAMPLES / example
        if (folder / "requirements.txt").is_file():
            program, *rest = words or ["search.py"]
            packages = {"PYTHONPATH": self.described["python"][example], "PYTHONDONTWRITEBYTECODE": "1"}
            return [sys.executable, str(folder / program), *rest], folder, packages
        if (folder / "package.json").is_file():
            if example not in self.described["node"]:
                pytest.skip("no node, see above")
            # A program finds node_modules beside itself, and code on the command line (-e) in the current directory.
            place = pathlib.Path(self.described["node"][example])
            for source in folder.glob("*.mjs"):
                shutil.copy(source, place)
            return ["node", *(words or ["search.mjs"])], place, {"NODE_NO_WARNINGS": "1"}
        program, *rest = words or ["search"]
        return [str(pathlib.Path(self.described["rust"][example]) / program), *rest], folder, {}


NUMBER = re.compile(r"(?<![\w.])-?\d\.\d\d(?![\d])")


def assert_printed(lines, expected):
    """Compares lines of output. Similarities may differ by 0.02, as they do between kinds of CPU."""
    assert [NUMBER.sub("#", line) for line in lines] == [NUMBER.sub("#", line) for line in expected]
    for line, wanted in zip(lines, expected):
        for number, other in zip(NUMBER.findall(line), NUMBER.findall(wanted)):
            assert abs(float(number) - float(other)) <= 0.02, line


@pytest.fixture
def printed():
    return assert_printed
