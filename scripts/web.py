"""`make web`: a page in the browser that searches the demo's tables.

PORT=8018 chooses the port, TIMEOUT=10 the seconds that a statement may take. DSN="host=... dbname=... user=..." shows the
tables of another database instead, with a role of yours that may read them.
"""

import os
import signal
import sys

import corpus
import demo
import postgres
import state
import tour
import web_role
from state import Failure, say

PORT, PORTS = 8018, 20
TIMEOUT = 10
PACKAGES = [postgres.PSYCOPG, "typing_extensions==4.15.0"]


def number(name: str, default: int, least: int, most: int) -> int:
    """A number from an environment variable."""
    value = os.environ.get(name) or str(default)
    if not (value.isascii() and value.isdigit()) or not least <= int(value) <= most:
        raise Failure(f"{name}={value} is not a number from {least} to {most}")
    return int(value)


def of_the_demo() -> str:
    """Brings up the demo with its rows; returns the connection string of the role that reads it."""
    with state.lock("demo"):
        server = demo.Demo.last()
        server.bring_up(tour.tell)
        with server.open() as session:
            corpus.load(server, session)
        web_role.make(server.cluster, demo.DATABASE)
    return server.cluster.dsn(demo.DATABASE, web_role.ROLE)


def refuse_superuser(dsn: str) -> None:
    """A superuser would read everything, and policies of tables would run with its rights."""
    import psycopg

    try:
        psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # libpq's message has the string, which may have a password.
        raise Failure('DSN= is no connection string; it has the form "host=... dbname=... user=..." or postgresql://...') from None
    try:
        with psycopg.connect(dsn, connect_timeout=10) as connection:
            # Options of the connection may set another role, which a function could reset.
            role, is_superuser = connection.execute(
                "select r.rolname, true from pg_roles r where r.rolsuper and r.rolname in (session_user, current_user) "
                "union all select current_user, false order by 2 desc limit 1").fetchone()
    except psycopg.Error as error:
        raise Failure(f"DSN= can't be connected to: {str(error).strip()}") from None
    if is_superuser:
        raise Failure(f"{role} is a superuser, and the page reads with a role that may only search; "
                      "docs/security.md has the grants of one")


def listening(database):
    """The server on PORT; without PORT on the first free port from 8018 on."""
    import web_server

    port = number("PORT", PORT, 1, 65535)
    for attempt in range(port, port + (1 if os.environ.get("PORT") else PORTS)):
        try:
            return web_server.Server(database, attempt)
        except OSError as error:
            why = error.strerror
    raise Failure(f"port {attempt} can't be used: {why}; PORT=9000 make web  takes another")


def main() -> int:
    timeout = number("TIMEOUT", TIMEOUT, 1, 3600)
    sys.path.insert(0, str(state.python_packages(PACKAGES)))
    # After the packages are there.
    from web_database import Database

    dsn = os.environ.get("DSN", "")
    if dsn:
        refuse_superuser(dsn)
    else:
        dsn = of_the_demo()
    server = listening(Database(dsn, timeout * 1000))
    say("the page, until Ctrl-C:")
    print(server.url, flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say("\nthe page has stopped; the server of the rows goes on:  make stop  ends it")
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    state.verb(main)
