"""The address that `make dsn` prints. The examples show that each driver reads it; here are names with odd letters."""

import psycopg
import pytest
from psycopg import sql

from uri import uri

NAMES = ["with space", "a/b?c&d=e#f%20g", "quote'd \"name\"", "größe"]


@pytest.fixture
def odd(server):
    for name in NAMES:
        server.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    yield NAMES
    for name in NAMES:
        server.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def test_libpq_reads_any_name_of_a_database(server, odd):
    for name in odd:
        with psycopg.connect(uri(server.cluster, name)) as connection:
            assert connection.execute("select current_database(), current_user").fetchone() == (name, "postgres")


def test_node_reads_a_name_without_reserved_letters(server, odd, javascript):
    """pg does not decode reserved letters (/ ? & #) in the path of a URI."""
    for name in ("with space", "größe"):
        assert javascript("node-pg", """
            import pg from 'pg';
            const client = new pg.Client(process.env.DATABASE_URL);
            await client.connect();
            tell((await client.query('select current_database() as name')).rows[0].name);
            await client.end();""", DATABASE_URL=uri(server.cluster, name)) == [name]
