"""The tests behind pgbouncer in transaction mode, a step of `make test-debian`.

    PG_CONFIG=/usr/lib/postgresql/15/bin/pg_config python3 scripts/pgbouncer.py     the step alone, after make install

pgbouncer and its libraries are Debian's. They are unpacked and not installed: the package would start a service.
"""

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import build
import model
import postgres
import pytests
import state
import throwaway
from state import CLONE, Failure
from tally import Tally

PACKAGES = ["pgbouncer", "libc-ares2", "libevent-2.1-7"]
HOME = CLONE / "tests" / "debian"
# One server connection for all clients: each transaction meets what the others left in it.
SETTINGS = """[databases]
* = host={socket} port=5432 user=postgres

[pgbouncer]
pool_mode = transaction
default_pool_size = 1
listen_port = 6432
unix_socket_dir = {place}
auth_type = any
"""


def unpacked() -> Path:
    """The root of the unpacked packages."""
    place = state.directory("debian") / "pgbouncer"
    if place.is_dir():
        return place
    with tempfile.TemporaryDirectory(prefix="apt-", dir=state.directory("tmp")) as work:
        # apt's unprivileged user can't write to root's directory.
        download = ["apt-get", "-o", "APT::Sandbox::User=root", "download", *PACKAGES]
        for command in (download, ["apt-get", "update"], download):
            done = subprocess.run(command, cwd=work, stdin=subprocess.DEVNULL, stdout=sys.stderr)
            if done.returncode == 0 and command is download:
                break
        made = Path(work) / "unpacked"
        made.mkdir()
        archives = sorted(Path(work).glob("*.deb"))
        if len(archives) != len(PACKAGES):
            raise Failure(f"apt-get download {' '.join(PACKAGES)} failed, so there is no pgbouncer to test behind; what it says "
                          "above names the cause")
        for archive in archives:
            subprocess.run(["dpkg", "--extract", str(archive), str(made)], check=True)
        os.replace(made, place)
    return place


@contextlib.contextmanager
def bouncing(cluster: postgres.Cluster, work: Path):
    """pgbouncer before a cluster during the block; the value is the directory of its socket."""
    root = unpacked()
    libraries = sorted({str(path.parent) for path in root.glob("usr/lib/**/*.so.*")})
    who = {}
    user = state.server_user()
    # A short path, because that of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="gte-bouncer-", dir="/tmp") as place:
        (Path(place) / "pgbouncer.ini").write_text(SETTINGS.format(socket=cluster.socket_dir, place=place), encoding="utf-8")
        if user is not None:
            account = pwd.getpwnam(user)
            os.chown(place, account.pw_uid, account.pw_gid)
            os.chown(Path(place) / "pgbouncer.ini", account.pw_uid, account.pw_gid)
            who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        with open(work / "pgbouncer.log", "wb") as log:
            process = subprocess.Popen([str(root / "usr" / "sbin" / "pgbouncer"), f"{place}/pgbouncer.ini"], cwd="/",
                                       env={**state.environment(), "LD_LIBRARY_PATH": os.pathsep.join(libraries)},
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **who)
        try:
            until = time.monotonic() + 30
            while not (Path(place) / ".s.PGSQL.6432").exists():
                if process.poll() is not None or time.monotonic() > until:
                    raise Failure("pgbouncer did not start:\n" + (work / "pgbouncer.log").read_text("utf-8", errors="replace"))
                time.sleep(0.05)
            yield place
        finally:
            process.terminate()
            process.wait()


def run(tally: Tally, pg_config: Path) -> None:
    """The step, on a cluster of a PostgreSQL that has the extension."""
    with tally.step("pgbouncer in transaction mode"):
        work = state.directory("pgbouncer")
        settings = {**throwaway.SERVER_SETTINGS, "gte_small.model_path": str(model.minilm())}
        try:
            with postgres.Cluster(pg_config, work / "cluster", settings) as cluster:
                cluster.destroy()
                cluster.create()
                cluster.start()
                cluster.psql('create extension "gte-small" cascade;')
                with bouncing(cluster, work) as place:
                    process = pytests.Process(work / "pgbouncer.xml", HOME / "test_pgbouncer.py",
                                              GTE_BOUNCER=json.dumps({"server": cluster.dsn(), "pool": place}))
                    process.count(tally, process.in_foreground())
        finally:
            shutil.rmtree(work, ignore_errors=True)


def main() -> int:
    pg_config = build.own_pg_config()
    tally = Tally()
    with state.lock("pgbouncer"):
        run(tally, pg_config)
    return tally.finish()


if __name__ == "__main__":
    state.verb(main)
