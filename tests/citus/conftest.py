"""Three clusters that scripts/citus.py asks for: a coordinator and two workers, with one database `demo`.

Tables are the tests' own, so each test names its table after itself.
"""

import json
import os
import pathlib
import sys

import pytest

CLONE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CLONE / "scripts"))

import citus_nodes  # noqa: E402  scripts/citus_nodes.py


def pytest_configure(config):
    if "GTE_CITUS" not in os.environ:
        pytest.exit("no clusters to test: run `make test-citus PG_CONFIG=...`", returncode=2)


@pytest.fixture(scope="session")
def nodes():
    made = citus_nodes.Nodes(json.loads(os.environ["GTE_CITUS"]))
    try:
        for node in made.all:
            with node.connect(dbname="postgres") as connection:
                connection.execute("create role citus_owner login")
        made.setup()
        for node in made.all:
            with node.connect() as connection:
                connection.execute("set citus.enable_ddl_propagation = off")
                connection.execute("grant create on schema public to citus_owner")
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
