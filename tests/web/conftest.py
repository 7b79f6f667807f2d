"""The page's server beside a database of the test's own; the fixtures of tests/e2e make the databases."""

import contextlib
import http.client
import importlib.util
import json
import pathlib
import sys
import threading

import pytest

CLONE = pathlib.Path(__file__).resolve().parents[2]
for folder in ("scripts", "tests/e2e"):
    sys.path.insert(0, str(CLONE / folder))
# This directory has a conftest of its own, so that of tests/e2e gets another name.
_spec = importlib.util.spec_from_file_location("e2e_fixtures", CLONE / "tests" / "e2e" / "conftest.py")
sys.modules["e2e_fixtures"] = e2e_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(e2e_fixtures)

import web_role  # noqa: E402  scripts/web_role.py
import web_server  # noqa: E402
from e2e_fixtures import connection, database, pytest_configure, server  # noqa: E402,F401
from web_database import Database  # noqa: E402

# No statement of a test takes as long on a busy machine. Tests of the timeout choose their own.
TIMEOUT_MS = 60_000


class Running:
    """The page's server in this process, and its calls as the page makes them."""

    def __init__(self, dsn: str, timeout_ms: int):
        self.server = web_server.Server(Database(dsn, timeout_ms))
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.port, self.url = self.server.port, self.server.url

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def headers(self, **changed) -> dict:
        made = {"Host": f"127.0.0.1:{self.port}", "Origin": f"http://127.0.0.1:{self.port}",
                "Content-Type": "application/json", "X-Key": self.server.key}
        made.update({name.replace("_", "-"): value for name, value in changed.items()})
        return {name: value for name, value in made.items() if value is not None}

    def request(self, method: str, path: str, body: bytes = b"", **changed):
        """(status, headers, body) of one request."""
        browser = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(browser):
            browser.request(method, path, body, self.headers(**changed))
            answer = browser.getresponse()
            return answer.status, answer.headers, answer.read()

    def call(self, name: str, **body) -> dict:
        status, _, answer = self.request("POST", f"/api/{name}", json.dumps(body).encode())
        assert status == 200, answer
        return json.loads(answer)

    def table(self, label: str = "docs") -> dict:
        """The names of a table in a call, as the page has them from the overview."""
        found = [t for t in self.call("overview")["tables"] if t["label"] == label]
        return {"table": found[0]["oid"], "embedding": found[0]["embedding"]}

    def question(self, search: str, parts=("meaning",), label: str = "docs", **more) -> dict:
        return {**self.table(label), "page": "a page", "serial": 1, "parts": list(parts), "search": search, "count": 5,
                "threshold": None, "filter": {}, **more}

    def search(self, search: str, parts=("meaning",), label: str = "docs", **more) -> dict:
        """The answer's lines by their part."""
        status, _, answer = self.request("POST", "/api/search", json.dumps(self.question(search, parts, label, **more)).encode())
        assert status == 200, answer
        lines = [json.loads(line) for line in answer.splitlines()]
        assert lines[-1]["part"] == "end"
        return {line["part"]: line for line in lines}


@pytest.fixture
def page():
    """Starts page servers, and ends them after the test."""
    started = []

    def start(dsn: str, timeout_ms: int = TIMEOUT_MS) -> Running:
        started.append(Running(dsn, timeout_ms))
        return started[-1]

    yield start
    for one in started:
        one.close()


DOCS = [
    ("the error ERR-1042 was seen after the restart", "de", 1),
    ("the café opens at nine, and the kitchen at eleven", "fr", 2),
    ("vacuum gives back the room that deleted rows take", "en", 3),
    ("<script>document.title = 'taken over'</script> & <b>bold</b>", "en", None),
    ("売上報告 for the third quarter", "ja", 4),
    ("a backup is taken every night at two", "en", 5),
]


def make_docs(connection, role: str = web_role.ROLE) -> None:
    """A table `docs` with a search, which the role may read."""
    connection.execute("create table docs (id int generated always as identity primary key, body text, lang text, priority int)")
    connection.execute("select enable_semantic_search('docs', '{body}', text_search => 'english')")
    connection.cursor().executemany("insert into docs (body, lang, priority) values (%s, %s, %s)", DOCS)
    connection.execute(f"grant select on docs to {role}; analyze docs")


def make_role(database) -> None:
    web_role.make(database.server.cluster, database.name)


def reader(database) -> str:
    return database.server.cluster.dsn(database.name, web_role.ROLE)


@pytest.fixture
def docs(database, connection, page):
    """The page of a database with the table `docs`."""
    make_role(database)
    make_docs(connection)
    return page(reader(database))


@pytest.fixture(scope="session")
def shared(server):
    """A page and its table `docs` for the tests that only read."""
    database = server.create_database()
    make_role(database)
    make_docs(database.connect())
    running = Running(reader(database), TIMEOUT_MS)
    yield running
    running.close()
    database.drop()
