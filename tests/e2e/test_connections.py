"""A thousand connections that embed one text each and end: they leave nothing in the server."""

import os
import pathlib
import threading
import time

import psycopg
import pytest

from measure import embedding, memory_kb, one, wait_until

CONNECTIONS = 1000
CLIENTS = 20
TEXTS = [f"text number {i}" for i in range(7)]


@pytest.fixture(scope="module")
def crowded(server):
    # Without autovacuum, whose workers start and end at any time.
    with server.another("crowded", {"gte_small.model_path": str(server.tiny), "autovacuum": "off"}) as cluster:
        yield cluster


def state(cluster):
    """The server's processes, and the resources of the postmaster."""
    pid = cluster.pid()
    own = pathlib.Path(f"/proc/{pid}")
    children = {int(child) for child in (own / "task" / str(pid) / "children").read_text().split()}
    return {
        "processes": children,
        "threads": len(os.listdir(own / "task")),
        "files": len(os.listdir(own / "fd")),
    }


def settled(cluster):
    """The state after a second without a change: a backend leaves pg_stat_activity before it exits."""
    found = [state(cluster)]

    def unchanged():
        time.sleep(1)
        found.append(state(cluster))
        return found[-1] == found[-2]

    wait_until(unchanged)
    return found[-1]


def come_and_go(cluster, numbers, expected):
    """One client's share of the connections; raises an error for a wrong vector."""
    for i in numbers:
        with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
            text = TEXTS[i % len(TEXTS)]
            assert embedding(connection, text) == expected[text]


def run_clients(cluster, expected, connections):
    problems = []

    def client(number):
        try:
            come_and_go(cluster, range(number, connections, CLIENTS), expected)
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@pytest.mark.parametrize("library", ["", "gte-small"], ids=["alone", "preloaded"])
def test_a_thousand_connections(crowded, library):
    crowded.stop()
    crowded.start({"shared_preload_libraries": library})
    with psycopg.connect(crowded.dsn(), autocommit=True) as watcher:
        assert one(watcher, "select preloaded from embed_model()") == bool(library)
        expected = {text: embedding(watcher, text) for text in TEXTS}
        # Some connections first, until the postmaster's tables have their final size.
        run_clients(crowded, expected, 5 * CLIENTS)
        others = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
        wait_until(lambda: one(watcher, others) == 0)
        before, resident = settled(crowded), memory_kb(crowded.pid(), "RssAnon")
        run_clients(crowded, expected, CONNECTIONS)
        wait_until(lambda: state(crowded) == before)
        assert before["threads"] == 1
        assert memory_kb(crowded.pid(), "RssAnon") - resident < 1024
        assert embedding(watcher, TEXTS[0]) == expected[TEXTS[0]]
