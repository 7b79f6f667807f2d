"""The page's connections to PostgreSQL: read-only transactions that another thread can cancel, and errors in words.

A connection keeps its model, so connections are used again. Every statement runs in a read-only transaction of its own.
"""

import contextlib
import threading
import time
from dataclasses import dataclass

import psycopg
from psycopg import errors

# Each connection may have a model of its own in memory.
MOST_CONNECTIONS = 4
MOST_IDLE = 2
CONNECT_SECONDS = 5
# How often a request that runs is looked at: whether its browser is still there, whether a newer one has come.
LOOK_SECONDS = 0.05
AGAIN_SECONDS = 0.25
# Each transaction sets them for itself: pgbouncer refuses the parameter `options`, and gives a server connection to other
# clients after a transaction. The options of the user's address (search_path, role) go on to hold.
SETTINGS = "set local statement_timeout = {}; set local idle_in_transaction_session_timeout = '1min'; set local datestyle = iso"
MODEL_STATES = {"58P01", "58030", "XX001"}


class Problem(Exception):
    """An error to show in the page. `kind` tells the page how."""

    def __init__(self, kind: str, message: str, detail: str = "", hint: str = ""):
        super().__init__(message)
        self.kind, self.message, self.detail, self.hint = kind, message, detail, hint

    def described(self) -> dict:
        return {"kind": self.kind, "message": self.message, "detail": self.detail, "hint": self.hint}


class Job:
    """One request's use of the database. `cancel` may be called from any thread."""

    def __init__(self):
        self._lock = threading.Lock()
        self._connection = None
        self._cancelled = threading.Event()
        self.finished = threading.Event()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        self._cancelled.set()

    @contextlib.contextmanager
    def watched(self, browser_is_gone):
        """Cancels the job's statement during the block, if `browser_is_gone()` or after `cancel`."""
        watcher = threading.Thread(target=self._watch, args=(browser_is_gone,), daemon=True)
        watcher.start()
        try:
            yield self
        finally:
            self.finished.set()
            watcher.join()

    def _watch(self, browser_is_gone) -> None:
        pause = LOOK_SECONDS
        while not self.finished.wait(pause):
            if not self.cancelled and browser_is_gone():
                self.cancel()
            if self.cancelled:
                # More than once: a request to cancel that arrives between two statements has no effect.
                pause = AGAIN_SECONDS
                with self._lock:
                    if self._connection is not None:
                        with contextlib.suppress(psycopg.Error):
                            self._connection.cancel_safe(timeout=2)

    @contextlib.contextmanager
    def _uses(self, connection):
        """Lets the watcher cancel the statement of this connection, and of no later user of it."""
        with self._lock:
            if self.cancelled:
                raise Problem("cancelled", "a newer search replaced this one")
            self._connection = connection
        try:
            yield
        finally:
            with self._lock:
                self._connection = None


@dataclass
class Answer:
    """The result of a statement. Values are text as PostgreSQL writes it, or None."""

    names: list
    rows: list
    seconds: float


class Database:
    """A pool of read-only connections of one role."""

    def __init__(self, dsn: str, timeout_ms: int):
        self._dsn, self.timeout_ms = dsn, timeout_ms
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._lock = threading.Lock()
        self._idle = []
        # What was read of the catalogue lately, by those who read it; forgotten after an error that may come of it.
        self.catalogue = {}

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _connect(self):
        try:
            connection = psycopg.connect(
                self._dsn, connect_timeout=CONNECT_SECONDS, prepare_threshold=None, client_encoding="utf8",
                application_name="gte-small web")
        except psycopg.OperationalError as error:
            raise no_server(error) from None
        connection.read_only = True
        return connection

    @contextlib.contextmanager
    def session(self, job: Job):
        """A session for one job. After a lost connection it is not used again."""
        if not self._places.acquire(timeout=self.timeout_ms / 1000):
            raise Problem("busy", "all connections of the page are busy",
                          f"It has {MOST_CONNECTIONS}, and other windows use them.", "Try again.")
        try:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            session = Session(self, job, connection)
            try:
                yield session
            finally:
                self._give_back(session.connection)
        finally:
            self._places.release()

    def _give_back(self, connection) -> None:
        if connection is None or connection.closed:
            return
        with self._lock:
            if len(self._idle) < MOST_IDLE:
                self._idle.append(connection)
                return
        connection.close()


class Session:
    """Runs statements of one job on one connection, which is made at the first statement."""

    def __init__(self, database: Database, job: Job, connection):
        self._database, self._job, self.connection = database, job, connection
        self.timeout_ms, self.catalogue = database.timeout_ms, database.catalogue

    def run(self, statement: str, parameters=()) -> Answer:
        """Runs one statement in a read-only transaction; raises Problem."""
        reused = self.connection is not None
        if not reused:
            self.connection = self._database._connect()
        try:
            return self._run(statement, parameters)
        except psycopg.OperationalError as error:
            # An idle connection does not notice that the server was restarted. Reading twice changes nothing.
            if not self.connection.closed:
                raise self._described(error) from None
            self.connection = None
            if reused:
                return self.run(statement, parameters)
            raise no_server(error) from None
        except (psycopg.Error, UnicodeError) as error:
            raise self._described(error) from None

    def _described(self, error) -> Problem:
        problem = described(error, self._job, self.timeout_ms)
        if problem.kind in ("database", "rights"):
            self.catalogue.clear()
        return problem

    def _run(self, statement: str, parameters) -> Answer:
        connection = self.connection
        try:
            with self._job._uses(connection), connection.cursor() as cursor:
                cursor.execute(SETTINGS.format(self.timeout_ms).encode())
                began = time.monotonic()
                # bytes: psycopg refuses a str that is not a literal of the source.
                cursor.execute(statement.encode(), parameters)
                seconds = time.monotonic() - began
                result = cursor.pgresult
                names = [result.fname(column).decode() for column in range(result.nfields)]
                rows = [[None if (value := result.get_value(row, column)) is None else value.decode()
                         for column in range(result.nfields)] for row in range(result.ntuples)]
                return Answer(names, rows, seconds)
        finally:
            self._end(connection)

    def _end(self, connection) -> None:
        """Ends the transaction. After a cancel, a statement that may still be hit by it runs first."""
        if connection.closed:
            return
        try:
            connection.rollback()
            if self._job.cancelled:
                with contextlib.suppress(errors.QueryCanceled):
                    connection.execute("select")
                connection.rollback()
        except psycopg.Error:
            connection.close()

    def shown(self, statement: str, parameters) -> str:
        """The statement with its parameters as literals, as a user runs it in psql."""
        return psycopg.ClientCursor(self.connection).mogrify(statement.encode(), parameters).strip() + ";"


def no_server(error: psycopg.Error) -> Problem:
    said = str(error).strip()
    if "FATAL:" in said:
        return Problem("server", "PostgreSQL refuses the connection", said)
    return Problem("server", "PostgreSQL does not answer", said, "make start  starts the demo's server.")


def described(error, job: Job, timeout_ms: int) -> Problem:
    """A database error as a Problem."""
    if isinstance(error, UnicodeError):
        return Problem("input", "the text has characters that are not Unicode", "", "Leave them out.")
    state, said = error.sqlstate or "", error.diag
    message = said.message_primary or str(error).strip()
    detail, hint = said.message_detail or "", said.message_hint or ""
    if isinstance(error, errors.QueryCanceled):
        if job.cancelled:
            return Problem("cancelled", "a newer search replaced this one")
        return Problem("timeout", f"the statement was stopped after {timeout_ms / 1000:g} seconds",
                       "This is the page's statement_timeout.", "TIMEOUT=60 make web  allows a minute.")
    if isinstance(error, errors.InsufficientPrivilege):
        return Problem("rights", message, detail, hint)
    if state in MODEL_STATES:
        return Problem("model", message, detail, hint)
    if state.startswith("22") or isinstance(error, psycopg.DataError):
        return Problem("input", message, detail, hint)
    return Problem("database", message, detail, hint)
