"""Whom the page connects as, with which options, and how many browsers may wait."""

import contextlib
import json
import os
import resource
import socket

import pytest

import web
import web_server
from conftest import make_docs, make_role, reader
from state import Failure
from web_database import Database, Job


def options(dsn: str, given: str) -> str:
    return f"{dsn} options='{given}'"


def test_the_options_of_the_address_hold(database, connection, page):
    make_role(database)
    connection.execute("create schema app; set search_path = app, public")
    make_docs(connection)
    connection.execute("grant usage on schema app to gte_web")
    running = page(options(reader(database), "-c search_path=app,public -c default_transaction_read_only=off -c statement_timeout=0"), timeout_ms=12_000)
    assert [table["label"] for table in running.call("overview")["tables"]] == ["docs"]
    assert running.search("night")["meaning"]["rows"]
    # Those of the page are set later, so they win.
    with running.server.database.session(Job()) as session:
        found = session.run("select current_setting('transaction_read_only'), current_setting('statement_timeout'), current_setting('search_path')")
    assert found.rows == [["on", "12s", "app,public"]]


@pytest.mark.parametrize("given", ["", "-c role=gte_web"])
def test_a_superuser_is_refused_whatever_role_its_options_set(database, given):
    make_role(database)
    web.refuse_superuser(reader(database))
    with pytest.raises(Failure, match="postgres is a superuser"):
        web.refuse_superuser(options(database.server.cluster.dsn(database.name), given))


@pytest.mark.parametrize("dsn", ["postgresql//gte_web:s3cret@localhost/demo", "host=localhost s3cret", "postgresql://gte_web@localhost/demo?s3cret=1"])
def test_a_malformed_address_is_not_repeated(server, dsn):
    with pytest.raises(Failure, match="no connection string") as failure:
        web.refuse_superuser(dsn)
    assert "s3cret" not in str(failure.value)


def test_many_browsers_may_wait(server):
    # Nothing accepts them. ThreadingHTTPServer is closed at the end of its block.
    with web_server.Server(Database("", 1000)) as waiting, contextlib.ExitStack() as browsers:
        for _ in range(50):
            browsers.enter_context(socket.create_connection(("127.0.0.1", waiting.port), timeout=5))


@pytest.mark.parametrize("embedding", [["embedding"], {"a": 1}, None, 5])
def test_a_column_that_is_no_name_is_refused_in_words(shared, embedding):
    for name in ("filters", "status"):
        assert shared.call(name, **{**shared.table(), "embedding": embedding})["problem"]["kind"] == "input"
    body = json.dumps(shared.question("night", embedding=embedding)).encode()
    assert b'"kind": "input"' in shared.request("POST", "/api/search", body)[2]


def test_a_refused_connection_is_not_called_a_stopped_server(docs, connection, page, database):
    connection.execute("create role gte_once login connection limit 0")
    try:
        problem = page(database.server.cluster.dsn(database.name, "gte_once")).call("overview")["problem"]
    finally:
        connection.execute("drop role gte_once")
    assert problem["kind"] == "server" and "refuses" in problem["message"] and "too many connections" in problem["detail"] and not problem["hint"]


def test_an_extension_of_another_version_is_not_called_absent(docs, connection):
    # As before an update: a function that the page calls is not there.
    connection.execute("alter function gte_small.qualified(regclass) rename to qualified_before")
    problem = docs.call("overview")["problem"]
    assert "another version" in problem["message"] and problem["hint"] == 'alter extension "gte-small" update;'


def test_the_statement_of_a_hint_repairs_the_table_whatever_its_names_are(docs, connection):
    name = "x'); drop table docs; --"
    columns = ['it\'s "quoted"', "back\\slash"]
    quoted = ['"' + column.replace('"', '""') + '"' for column in columns]
    connection.execute(f'create table "{name}" ({quoted[0]} text, {quoted[1]} text); grant select on "{name}" to gte_web'.encode())
    connection.execute("select enable_semantic_search(%s, %s::text, embedding => 'it''s one')", [f'"{name}"', ", ".join(quoted)])
    for (function,) in connection.execute("select m::regprocedure::text from gte_small.made_functions(%s::regclass, 'it''s one') m", [f'"{name}"']).fetchall():
        connection.execute(f"drop function {function}".encode())
    problem = docs.search("night", label=f'"{name}"')["all"]["problem"]
    assert "no search functions" in problem["message"]
    connection.execute(problem["hint"].encode())
    assert docs.search("night")["meaning"]["rows"] and docs.search("night", label=f'"{name}"', serial=2)["meaning"]["rows"] == []


def test_a_search_is_not_cancelled_for_a_thousand_open_connections(shared):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip("the system allows too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    with contextlib.ExitStack() as held:
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            held.callback(os.close, os.dup(0))
        # It takes long enough for a look at the browser.
        assert shared.call("selftest")["values"]
