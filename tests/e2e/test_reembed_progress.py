"""`make reembed` shows its progress on one line, and says after Ctrl-C how it goes on."""

import re

import pytest

import corpus
import demo
import session
from state import Failure
from test_demo import the_demo  # noqa: F401  a fixture

ROWS = 3000


@pytest.fixture
def docs(connection):
    connection.execute("create table docs (body text); select enable_semantic_search('docs', '{body}', with_index => false)")
    connection.execute("insert into docs select 'text number ' || i from generate_series(1, %s) i", [ROWS])
    return connection


def test_the_progress_has_a_rate_and_the_time_left(docs, database, monkeypatch, capsys):
    monkeypatch.setattr(corpus.Watch, "PAUSE", 0.001)
    cluster = database.server.cluster
    with session.Session(cluster, database.name) as working, session.Session(cluster, database.name) as watcher:
        corpus.reembed(working, watcher)
    said = capsys.readouterr().err
    lines = re.findall(rf"^embedding docs  (\d+) of {ROWS} rows  \d+ rows/s  \d+ s left$", said, re.MULTILINE)
    assert len(lines) > 1 and int(lines[-1]) == ROWS and [int(n) for n in lines] == sorted({int(n) for n in lines})
    # The notices that say the same are left out.
    assert "rows embedded in" not in said


def test_a_backfill_too_fast_to_watch_tells_its_end(docs, database, monkeypatch, capsys):
    monkeypatch.setattr(corpus.Watch, "PAUSE", 3600)
    cluster = database.server.cluster
    with session.Session(cluster, database.name) as working, session.Session(cluster, database.name) as watcher:
        corpus.reembed(working, watcher)
    assert f"{ROWS} rows embedded in" in capsys.readouterr().err


def test_an_interrupted_reembed_says_how_to_go_on(database, the_demo, monkeypatch):  # noqa: F811
    made = the_demo(database, model={"path": str(database.server.tiny), "name": "tiny", "asked": "tiny"})
    monkeypatch.setattr(made.cluster.__class__, "exists", lambda _: True, raising=False)
    monkeypatch.setattr(demo, "_choose", lambda wanted: {"path": str(database.server.tiny), "name": wanted, "asked": wanted})
    monkeypatch.setenv("MODEL", "all-MiniLM-L6-v2")

    def interrupted():
        raise KeyboardInterrupt

    made.set_up = interrupted
    with pytest.raises(Failure, match="make reembed  goes on"):
        demo.reembed()
    # What the next run finishes.
    assert made.memory["reembedding"] is True and made.memory["model"]["name"] == "all-MiniLM-L6-v2"
