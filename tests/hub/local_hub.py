"""A hub on this machine with the protocol of the real hub, and with faults on demand.

As on the real hub, `/{repo}/resolve/{revision}/{file}` answers with a relative 307 to its own resolve cache for a small
file, and with a 302 to another host for a large file. x-linked-etag has the content hash, and both hosts serve ranges. A
fault changes the answers for one file, for some of the requests.
"""

import hashlib
import http.server
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

REPO = "acme/tiny-encoder"
REVISION = "0123456789abcdef0123456789abcdef01234567"
LARGE = 4096
CHUNK = 16 * 1024


@dataclass
class Request:
    """A request to a host."""

    host: str  # "hub" (the resolve address), "cache" (small files), "content" (large files)
    file: str
    range: str
    authorization: str

    @property
    def for_metadata(self) -> bool:
        return self.range == "bytes=0-0"


@dataclass
class Reply:
    """An answer, before a fault changes it."""

    status: int
    headers: dict
    body: bytes = b""
    stop_after: int = -1  # bytes of the body to send before `stop`
    stop: str = ""  # "cut": close the connection; "stall": keep it open and send nothing more
    pause: float = 0.0  # seconds between single bytes
    unbounded: bool = False  # no length: the end of the connection is the end of the body
    endless: bool = False
    silent: bool = False  # never answer at all


@dataclass
class Fault:
    file: str
    change: object  # changes a Reply
    hosts: tuple
    metadata: bool
    body: bool
    times: int
    seen: int = field(default=0)


def status(code):
    def change(reply):
        reply.status, reply.headers, reply.body = code, {}, b"no"
    return change


def without(*names):
    def change(reply):
        reply.headers = {k: v for k, v in reply.headers.items() if k.lower() not in names}
    return change


def stop(how, after):
    def change(reply):
        reply.stop, reply.stop_after = how, after
    return change


def silent(reply):
    reply.silent = True


def trickle(reply):
    reply.pause = 0.05


def endless(reply):
    reply.unbounded = reply.endless = True
    del reply.headers["Content-Length"]


def whole_file(data):
    """A host that does not support ranges."""
    def change(reply):
        reply.status, reply.body = 200, data
        reply.headers["Content-Length"] = str(len(data))
        reply.headers.pop("Content-Range", None)
    return change


def redirect(location):
    def change(reply):
        reply.status, reply.body = 302, b""
        reply.headers.update({"Location": location, "Content-Length": "0", "X-Linked-ETag": '"0123"'})
    return change


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        reply = self.server.hub.answer(self)
        if reply.silent:
            self.server.hub.closing.wait()
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        # An answer that is cut short has its full length in the header. One without a length ends with the connection.
        if "Content-Length" not in reply.headers and not reply.unbounded:
            self.send_header("Content-Length", str(len(reply.body)))
        if reply.unbounded:
            self.send_header("Connection", "close")
        self.end_headers()
        try:
            self._send_body(reply)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _send_body(self, reply):
        if reply.unbounded:
            self.close_connection = True
        if reply.endless:
            while not self.server.hub.closing.is_set():
                self.wfile.write(b"x" * CHUNK)
        body = reply.body if reply.stop_after < 0 else reply.body[:reply.stop_after]
        if reply.pause:
            for byte in body:
                self.wfile.write(bytes([byte]))
                if self.server.hub.closing.wait(reply.pause):
                    return
        for start in range(0, len(body), CHUNK):
            self.wfile.write(body[start:start + CHUNK])
        if reply.stop:
            self.close_connection = True
            if reply.stop == "stall":
                self.server.hub.closing.wait()

    def log_message(self, *_):
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # `server_close` must not wait for the threads of stalled answers.
    block_on_close = False

    def handle_error(self, *_):
        """Ignores clients that disconnect, because half of the tests do that."""


class LocalHub:
    """Serves `files` at REPO and REVISION; with `token` it requires this token."""

    def __init__(self, files: dict, token: str = "", repo: str = REPO, revision: str = REVISION):
        self.files, self.token, self.repo, self.revision = dict(files), token, repo, revision
        self.requests, self.faults = [], []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._servers = [_Server(("127.0.0.1", 0), _Handler) for _ in range(2)]
        for server in self._servers:
            server.hub = self
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.port, self.content_port = (server.server_address[1] for server in self._servers)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        # Another host name: headers for the hub must not be sent there.
        self.content_host = f"http://localhost:{self.content_port}"

    def close(self):
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def fault(self, file, change, hosts=("cache", "content"), metadata=False, body=True, times=-1):
        """Apply `change` to the next `times` answers (-1: all) for `file`, on these hosts."""
        self.faults.append(Fault(file, change, hosts, metadata, body, times))

    def heal(self):
        self.faults.clear()

    def manifest(self) -> str:
        files = [{"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                 for name, data in self.files.items()]
        return json.dumps({"repo": self.repo, "revision": self.revision, "files": files})

    def bodies(self, file) -> list:
        """The requests for the content of a file, without those for its size and hash."""
        return [r for r in self.requests if r.file == file and r.host != "hub" and not r.for_metadata]

    def answer(self, handler) -> Reply:
        host, file = self._route(handler)
        request = Request(host, file, handler.headers.get("Range", ""), handler.headers.get("Authorization", ""))
        with self._lock:
            self.requests.append(request)
            faults = [f for f in self.faults if self._applies(f, request)]
        reply = self._reply(request)
        for fault in faults:
            fault.change(reply)
        return reply

    @staticmethod
    def _applies(fault, request) -> bool:
        wanted = fault.metadata if request.for_metadata else fault.body
        if fault.file != request.file or request.host not in fault.hosts or not wanted:
            return False
        fault.seen += 1
        return fault.times < 0 or fault.seen <= fault.times

    def _route(self, handler):
        # The path as it was sent: `handler.path` has no double slash at its start, for which the real hub answers 404.
        path = unquote(urlsplit("http://hub" + handler.requestline.split()[1]).path)
        if handler.server is self._servers[1]:
            by_hash = {hashlib.sha256(data).hexdigest(): file for file, data in self.files.items()}
            return "content", by_hash.get(path.rsplit("/", 1)[-1], "")
        for host, root in (("cache", "/api/resolve-cache/models/{}/{}/"), ("hub", "/{}/resolve/{}/")):
            root = root.format(self.repo, self.revision)
            if path.startswith(root):
                return host, path[len(root):]
        return "hub", ""

    def _reply(self, request) -> Reply:
        if request.host != "content" and self.token and request.authorization != f"Bearer {self.token}":
            return Reply(401, {"X-Error-Message": "Invalid credentials"}, b"Unauthorized")
        if request.file not in self.files:
            return Reply(404, {"X-Error-Code": "EntryNotFound"}, b"Entry not found")
        data = self.files[request.file]
        sha256 = hashlib.sha256(data).hexdigest()
        git_etag = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        about = {"X-Repo-Commit": self.revision, "Accept-Ranges": "bytes"}
        large = len(data) >= LARGE
        if request.host == "hub" and large:
            return Reply(302, {**about, "Location": f"{self.content_host}/xet/{sha256}?X-Amz-Signature=s3cr3t",
                               "X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(data)),
                               "ETag": f'"{git_etag}"'})
        if request.host == "hub":
            return Reply(307, {**about, "X-Linked-Size": str(len(data)), "Location":
                               f"/api/resolve-cache/models/{self.repo}/{self.revision}/{request.file}"
                               f"?%2F{request.file}=&etag=%22{git_etag}%22"})
        headers = about if request.host == "cache" else {"Accept-Ranges": "bytes"}
        return self._ranged(data, {**headers, "ETag": f'"{sha256 if large else git_etag}"'}, request.range)

    @staticmethod
    def _ranged(data, headers, wanted) -> Reply:
        if not wanted:
            return Reply(200, {**headers, "Content-Length": str(len(data))}, data)
        first, last = wanted[len("bytes="):].split("-")
        first, last = int(first), min(int(last or len(data)), len(data) - 1)
        if first >= len(data):
            return Reply(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
        part = data[first:last + 1]
        return Reply(206, {**headers, "Content-Length": str(len(part)),
                           "Content-Range": f"bytes {first}-{last}/{len(data)}"}, part)


class Proxy:
    """A proxy that tunnels to any address, or answers `refusal`; it counts its tunnels."""

    def __init__(self, refusal: int = 0):
        self.tunnels, self.refusal = [], refusal
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            block = client.recv(4096)
            if not block:
                return
            head += block
        target = head.split()[1].decode()
        self.tunnels.append(target)
        if self.refusal:
            client.sendall(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % self.refusal)
            client.close()
            return
        host, port = target.rsplit(":", 1)
        upstream = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        threading.Thread(target=self._pump, args=(upstream, client), daemon=True).start()
        self._pump(client, upstream)

    @staticmethod
    def _pump(source, target):
        try:
            while block := source.recv(65536):
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class BlackHole:
    """An address that answers no packet: a listener whose queue is full, so that the kernel drops packets."""

    def __init__(self):
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.address = self._listener.getsockname()
        self.endpoint = f"http://127.0.0.1:{self.address[1]}"
        self._queue = []
        for _ in range(4):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(self.address)
            self._queue.append(waiting)
        time.sleep(0.1)

    def close(self):
        for waiting in self._queue:
            waiting.close()
        self._listener.close()


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
