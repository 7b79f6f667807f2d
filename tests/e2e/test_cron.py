"""gte_small.defer with a backfill that pg_cron runs: the writer does not wait for the model, a job embeds the rows."""

import json
import os
import pathlib
import re
import time

import psycopg
import pytest

from conftest import postgres
from measure import one

# The schedule is each minute: the first run starts within one, and a slow machine gets another.
PATIENCE = 150
JOBS = {
    # All rows without an embedding, in batches that commit; and one batch per run.
    "documents": "call embed_backfill('documents')",
    "notes": "select embed_backfill_step('notes')",
}
ROWS = {"documents": 300, "notes": 20}


@pytest.fixture(scope="module")
def scheduling(server):
    """Yields a cluster with pg_cron, which connects to its socket."""
    described = json.loads(os.environ["GTE_TEST"])
    pg_config, directory = pathlib.Path(described["pg_config"]), pathlib.Path(described["directory"])
    if not (pathlib.Path(postgres.config(pg_config, "--sharedir")) / "extension" / "pg_cron.control").is_file():
        pytest.skip("this PostgreSQL has no pg_cron; make test-debian has one")
    cluster = postgres.Cluster(pg_config, directory.with_name(directory.name + "-cron"))
    cluster.destroy()
    cluster.create()
    try:
        cluster.start({"shared_preload_libraries": "pg_cron", "cron.host": str(cluster.socket_dir),
                       "cron.database_name": "postgres", "gte_small.model_path": str(server.tiny)})
        cluster.psql('create extension "gte-small" cascade; create extension pg_cron; '
                     "create role writer login; grant create on schema public to writer; grant usage on schema cron to writer; "
                     # The setting is for all sessions, also for the jobs, which embed nevertheless.
                     "alter database postgres set gte_small.defer = on;")
        yield cluster
    finally:
        cluster.destroy()


@pytest.fixture(scope="module")
def writer(scheduling):
    """A plain user with two tables and a job for each. Rows are written while the jobs run."""
    with psycopg.connect(scheduling.dsn(user="writer"), autocommit=True) as connection:
        # 1.4-1 and older have no schedules in seconds.
        version = re.match(r"(\d+)\.(\d+)", one(connection, "select extversion from pg_extension where extname = 'pg_cron'"))
        schedule = "5 seconds" if (int(version[1]), int(version[2])) >= (1, 5) else "* * * * *"
        for table, command in JOBS.items():
            connection.execute(f"create table {table} (id int generated always as identity primary key, content text)")
            connection.execute("select enable_semantic_search(%s)", [table])
            connection.execute("select cron.schedule(%s, %s, %s)", [f"gte-small backfill of {table}", schedule, command])
            connection.execute(f"insert into {table} (content) select 'text number ' || n from generate_series(1, %s) n",
                               [ROWS[table]])
            # No writer waited for the model, and a search by meaning finds no row yet.
            assert one(connection, f"select count(embedding) from {table}") == 0
        yield connection


@pytest.mark.parametrize("table", JOBS)
def test_deferred_rows_get_their_embedding_on_schedule(writer, table):
    until = time.monotonic() + PATIENCE
    while one(writer, f"select count(*) from {table} where embedding is null") and time.monotonic() < until:
        time.sleep(0.2)
    runs = writer.execute("select status, return_message from cron.job_run_details where command = %s", [JOBS[table]]).fetchall()
    assert one(writer, f"select count(embedding) from {table}") == ROWS[table], runs
    assert one(writer, f"select count(*) from {table} where -(embedding <#> embed(content)) > 0.999999") == ROWS[table]
    assert one(writer, f"select content from query_{table}('text number 7', null, 1)") == "text number 7"
    assert "failed" not in {status for status, _ in runs}, runs


def test_an_update_is_done_by_the_next_run(writer):
    """Until then the row has no embedding, and not the embedding of its old text."""
    writer.execute("update documents set content = 'something else' where id = 1")
    assert one(writer, "select embedding is null from documents where id = 1")
    until = time.monotonic() + PATIENCE
    while one(writer, "select embedding is null from documents where id = 1") and time.monotonic() < until:
        time.sleep(0.2)
    assert one(writer, "select -(embedding <#> embed('something else')) > 0.999999 from documents where id = 1")


def test_no_run_failed(writer):
    assert writer.execute("select command, status, return_message from cron.job_run_details where status = 'failed'").fetchall() == []
