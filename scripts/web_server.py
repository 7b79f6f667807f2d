"""The HTTP server of the search page: four files, and a few calls that answer in JSON.

It listens on 127.0.0.1. Any program of this machine can connect there, also one of another user, so each call carries a
key that only the address printed by `make web` has. Host and Origin are checked: a page of another site that has its name
resolve to 127.0.0.1 gets nothing. Any port is right, since ssh may forward another one. All calls are POST, and none
changes anything in the database.
"""

import contextlib
import hmac
import json
import re
import secrets
import select
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import web_search
from state import CLONE
from web_database import Database, Job, Problem

ADDRESS = "127.0.0.1"
HOST = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?")
PAGE = CLONE / "web"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/results.js": ("results.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    # Text of rows can't become script or markup even if the page had a fault.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
                               "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
                               "trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
MOST_BODY = 1 << 18
# A page's newest search, by the page's own name. Old ones are forgotten.
MOST_PAGES = 200
SEARCHES = {"meaning": web_search.by_meaning, "words": web_search.by_words, "both": web_search.by_both}


class Server(ThreadingHTTPServer):
    """The page of one database."""

    daemon_threads = True
    # Without it a port that was just used is refused for a minute.
    allow_reuse_address = True
    # Connections that wait to be accepted. With socketserver's five, those of several windows are reset.
    request_queue_size = 128

    def __init__(self, database: Database, port: int = 0):
        self.database = database
        self.key = secrets.token_urlsafe(18)
        self._pages, self._browsers = {}, set()
        self._lock = threading.Lock()
        super().__init__((ADDRESS, port), Handler)

    @property
    def port(self) -> int:
        return self.server_address[1]

    @property
    def url(self) -> str:
        """The key stands after `#`, so a browser sends it to nobody."""
        return f"http://{ADDRESS}:{self.port}/#{self.key}"

    def newest(self, page, serial, job: Job) -> None:
        """Makes this the page's search and cancels the one before; raises Problem if a newer one has come already."""
        if not isinstance(page, str) or not isinstance(serial, int):
            raise Problem("input", "a search names its page and its number")
        with self._lock:
            before = self._pages.pop(page, None)
            if before and before[0] > serial:
                self._pages[page] = before
                raise Problem("cancelled", "a newer search replaced this one")
            self._pages[page] = (serial, job)
            while len(self._pages) > MOST_PAGES:
                self._pages.pop(next(iter(self._pages)))
        if before:
            before[1].cancel()
            # Its connection is free within milliseconds, and has a model.
            before[1].finished.wait(1)

    def process_request(self, request, client_address) -> None:
        with self._lock:
            self._browsers.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:
        with self._lock:
            self._browsers.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Ends all connections and cancels what runs for them."""
        super().server_close()
        with self._lock:
            jobs, browsers = [job for _, job in self._pages.values()], list(self._browsers)
        for job in jobs:
            job.cancel()
        for browser in browsers:
            with contextlib.suppress(OSError):
                browser.shutdown(socket.SHUT_RDWR)
        self.database.close()

    def handle_error(self, request, client_address) -> None:
        """A browser that goes away is no error."""


class Handler(BaseHTTPRequestHandler):
    server_version, sys_version = "gte-small", ""
    protocol_version = "HTTP/1.1"
    # An idle connection of a browser ends after so many seconds.
    timeout = 60

    def log_message(self, *_) -> None:
        """Searches are nobody's business, so nothing is logged."""

    # -- files --

    def do_GET(self) -> None:
        path = self.path.split("?", 1)[0]
        if not HOST.fullmatch(self.headers.get("Host", "")):
            self._refuse(403, "this page is served for 127.0.0.1 only")
        elif path not in FILES:
            self._refuse(405 if path in CALLS else 404, "there is no such page")
        else:
            name, kind = FILES[path]
            self._send(200, (PAGE / name).read_bytes(), kind)

    do_HEAD = do_GET

    # -- calls --

    def do_POST(self) -> None:
        call = CALLS.get(self.path)
        length = self.headers.get("Content-Length", "")
        why = self._forbidden()
        if why:
            return self._refuse(403, why)
        if call is None:
            return self._refuse(404, "there is no such call")
        if not length.isdigit() or int(length) > MOST_BODY:
            return self._refuse(413, "the request is too long")
        try:
            body = json.loads(self.rfile.read(int(length)))
            if not isinstance(body, dict):
                raise ValueError
        except (ValueError, RecursionError):
            return self._refuse(400, "the request is not a JSON object")
        job = Job()
        with job.watched(self._browser_is_gone):
            call(self, body, job)
        return None

    def _forbidden(self) -> str:
        """Why this request is not from the page; empty if it is."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if not HOST.fullmatch(host):
            return "this page is served for 127.0.0.1 only"
        if origin != f"http://{host}":
            return "the request comes from another site"
        if self.headers.get("Content-Type") != "application/json":
            return "the request is not JSON"
        key = self.headers.get("X-Key", "")
        if not hmac.compare_digest(key.encode(), self.server.key.encode()):
            return "the key is not the one of this run"
        return ""

    def _browser_is_gone(self) -> bool:
        try:
            # Unlike select, poll takes any descriptor: other programs may hold a thousand connections.
            readable = select.poll()
            readable.register(self.connection, select.POLLIN)
            return bool(readable.poll(0)) and not self.connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def _answer(self, job: Job, made) -> None:
        """Sends what `made(session)` returns, or its Problem."""
        try:
            with self.server.database.session(job) as session:
                answer = made(session)
        except Problem as problem:
            answer = {"problem": problem.described()}
        self._send(200, json.dumps(answer).encode(), "application/json")

    def overview(self, _body: dict, job: Job) -> None:
        self._answer(job, web_search.overview)

    def filters(self, body: dict, job: Job) -> None:
        self._answer(job, lambda session: {"filters": web_search.filters(session, _table(session, body))})

    def status(self, body: dict, job: Job) -> None:
        self._answer(job, lambda session: {"status": web_search.status(session, _table(session, body))})

    def model(self, _body: dict, job: Job) -> None:
        self._answer(job, web_search.model)

    def selftest(self, _body: dict, job: Job) -> None:
        self._answer(job, web_search.selftest)

    def search(self, body: dict, job: Job) -> None:
        """Answers line by line, each a JSON object with `part`, as soon as it is there."""
        self.send_response(200)
        self._headers("application/x-ndjson")
        # The end of the connection is the end of the answer.
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        began = time.monotonic()
        try:
            self.server.newest(body.get("page"), body.get("serial"), job)
            asked = web_search.Search.asked(body)
            with self.server.database.session(job) as session:
                chosen = _table(session, body)
                chosen.require(chosen.search)
                words = web_search.Words(session, chosen, asked)
                self._line({"part": "terms", **words.described()})
                for name in [name for name in SEARCHES if name in _listed(body)]:
                    self._part(name, job, lambda search=SEARCHES[name]: search(session, chosen, asked, words))
                if "histogram" in _listed(body):
                    self._part("histogram", job, lambda: web_search.histogram(session, chosen, asked))
        except Problem as problem:
            self._line({"part": "all", "problem": problem.described()})
        self._line({"part": "end", "seconds": time.monotonic() - began})

    def _part(self, name: str, job: Job, made) -> None:
        """One part of a search. Its error leaves the other parts, unless the whole search was cancelled."""
        try:
            self._line({"part": name, **made()})
        except Problem as problem:
            if job.cancelled or problem.kind == "server":
                raise
            self._line({"part": name, "problem": problem.described()})

    # -- answers --

    def _line(self, value: dict) -> None:
        self.wfile.write(json.dumps(value).encode() + b"\n")
        self.wfile.flush()

    def _headers(self, kind: str) -> None:
        self.send_header("Content-Type", kind)
        for name, value in HEADERS.items():
            self.send_header(name, value)

    def _send(self, code: int, content: bytes, kind: str) -> None:
        self.send_response(code)
        self._headers(kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, code: int, why: str) -> None:
        # What was not read of the request would be taken for the next one.
        self.close_connection = True
        answer = {"problem": {"kind": "refused", "message": why, "detail": "", "hint": "Open the address that make web printed."}}
        self._send(code, json.dumps(answer).encode(), "application/json")


CALLS = {"/api/overview": Handler.overview, "/api/filters": Handler.filters, "/api/status": Handler.status,
         "/api/model": Handler.model, "/api/selftest": Handler.selftest, "/api/search": Handler.search}


def _table(session, body: dict) -> web_search.Table:
    return web_search.table(session, body.get("table"), body.get("embedding"))


def _listed(body: dict) -> list:
    parts = body.get("parts")
    return parts if isinstance(parts, list) else []
