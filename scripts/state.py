"""The directory of all created files, and the fetching of packages from PyPI.

STATE has everything outside the sources: servers, models, the embedded PostgreSQL, Python packages. For a plain user it
is target/state in the clone. For root it is outside the clone, with a name made from the clone's path, because
PostgreSQL refuses to run as root: the server runs as another user, who may have no access to the clone.

Importing this module changes nothing; directories are created when they are needed.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CLONE = Path(__file__).resolve().parent.parent
# Reference data that may lie beside the clone. It is not part of the project.
SHARED = CLONE.parent / "shared" / "data"
CLONE_KEY = hashlib.sha256(os.fsencode(CLONE)).hexdigest()[:12]


class Failure(Exception):
    """An error that the user can act on; a verb prints it without a traceback."""


def _state() -> Path:
    if os.geteuid() != 0:
        return CLONE / "target" / "state"
    base = "/var/lib" if os.access("/var/lib", os.W_OK) else "/var/tmp"
    return Path(base) / "gte-small" / CLONE_KEY


STATE: Path = _state()


def say(message: str) -> None:
    """A line of progress: on standard error, because standard output is for a verb's result."""
    print(message, file=sys.stderr, flush=True)


def server_user():
    """The user that a server runs as if root starts it; None if the caller runs it."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
            return name
        except KeyError:
            continue
    raise Failure("PostgreSQL refuses to run as root, and this system has neither a user postgres nor nobody; "
                  "create one (useradd --system postgres) or run as a plain user")


def directory(*parts: str) -> Path:
    """STATE or a directory below it; created if absent, readable by the server's user with any umask."""
    path = STATE.joinpath(*parts)
    outside = [STATE.parent, STATE] if os.geteuid() == 0 else []
    below = [p for p in [path, *path.parents] if STATE in p.parents]
    for step in [*outside, *reversed(below)]:
        if not step.is_dir():
            step.mkdir(parents=True, exist_ok=True)
            step.chmod(0o755)
        # In /var/tmp, where all users can write, another user may have created it.
        if step in outside and step.stat().st_uid != 0:
            raise Failure(f"{step} belongs to another user, so root will not keep a server in it; remove it")
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def lock(name: str):
    """Lets one process at a time run the block; the others wait."""
    with open(directory("locks") / name, "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run in this clone ({name}) ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def environment() -> dict:
    """The caller's environment without libpq's variables, which would send a tool to another server."""
    kept = ("PG_CONFIG", "PGRX_")
    return {k: v for k, v in os.environ.items()
            if not k.startswith("PG") or k == "PG" or k.startswith(kept)}


def git(*words: str) -> str:
    """The output of git in the clone; empty without git, and where the sources are no clone."""
    try:
        done = subprocess.run(["git", *words], cwd=CLONE, capture_output=True)
    except OSError:
        return ""
    return os.fsdecode(done.stdout) if done.returncode == 0 else ""


def tracked(*options: str) -> list:
    """The files that git lists, by their paths in the clone."""
    names = sorted(name for name in git("ls-files", "-z", *options).split("\0") if name and (CLONE / name).is_file())
    if not names:
        raise Failure(f"git lists no files in {CLONE}, so they can't be packed; this needs git and a clone")
    return names


def _pip_command() -> list:
    """The first pip that works: this Python's, one on PATH, or one that ensurepip installs in STATE."""
    own = directory("python") / "pip"
    candidates = [[sys.executable, "-m", "pip"]]
    candidates += [[p] for p in (shutil.which("pip3"), shutil.which("pip")) if p]
    candidates.append([str(own / "bin" / "python3"), "-m", "pip"])
    for command in candidates:
        with contextlib.suppress(OSError):
            if subprocess.run([*command, "--version"], capture_output=True).returncode == 0:
                return command
    # In a virtual environment: `ensurepip` alone would write into the system's Python.
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(own)], capture_output=True, text=True)
    if made.returncode != 0:
        shutil.rmtree(own, ignore_errors=True)
        raise Failure("this Python has no pip and no ensurepip, so nothing can be fetched from PyPI; "
                      "install pip (Debian and Ubuntu: sudo apt-get install -y python3-pip)")
    return candidates[-1]


def pip(*args: str) -> None:
    """Run pip with its output on standard error. A failure names the package."""
    # Users may forbid pip outside a virtual environment. This writes only below STATE.
    env = {**os.environ, "PIP_REQUIRE_VIRTUALENV": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
           "PIP_ROOT_USER_ACTION": "ignore"}
    done = subprocess.run([*_pip_command(), *args], stdout=sys.stderr, env=env, umask=0o022)
    if done.returncode != 0:
        raise Failure(f"pip {args[0]} failed for {args[-1]}, so it is not here; what pip says above names the cause "
                      "(a mirror is set by PIP_INDEX_URL, a proxy by HTTPS_PROXY)")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def machine() -> str:
    """This machine's name in the tables of wheels: linux-x86_64, linux-aarch64, macos-arm64."""
    system = {"Linux": "linux", "Darwin": "macos"}.get(platform.system(), platform.system().lower())
    cpu = platform.machine().lower()
    cpu = {"amd64": "x86_64", "arm64": "aarch64"}.get(cpu, cpu) if system == "linux" else cpu
    return f"{system}-{cpu}"


def _unzip(archive: Path, target: Path) -> None:
    """Unzip with the modes of the archive, readable by everybody."""
    with zipfile.ZipFile(archive) as zipped:
        for entry in zipped.infolist():
            out = Path(zipped.extract(entry, target))
            mode = entry.external_attr >> 16
            out.chmod(0o755 if out.is_dir() or mode & stat.S_IXUSR else 0o644)
    for folder, _, _ in os.walk(target):
        os.chmod(folder, 0o755)


def wheel(requirement: str, sha256_hex: str, dest: Path, **platform_options: str) -> Path:
    """Download one pinned wheel, verify it, unzip it into `dest`; a second call only checks a marker.

    `platform_options` are pip's (python_version, implementation, abi, platform). `dest` appears complete or not at all.
    """
    marker = dest / ".wheel-sha256"

    def there() -> bool:
        return marker.is_file() and marker.read_text(encoding="ascii") == sha256_hex

    if there():
        return dest
    with lock("wheel"):
        if there():
            return dest
        dest.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=directory("tmp")) as work:
            options = [f"--{name.replace('_', '-')}={value}" for name, value in platform_options.items()]
            pip("download", "--quiet", "--only-binary=:all:", "--no-deps", *options, "--dest", work, requirement)
            archives = list(Path(work).glob("*.whl"))
            if len(archives) != 1:
                raise Failure(f"pip fetched {len(archives)} wheels for {requirement} instead of one")
            found = sha256(archives[0])
            if found != sha256_hex:
                raise Failure(f"{archives[0].name} has sha256 {found} instead of the pinned {sha256_hex}, so it was "
                              "deleted; the mirror that pip uses serves another file")
            unpacked = Path(work) / "unpacked"
            _unzip(archives[0], unpacked)
            (unpacked / marker.name).write_text(sha256_hex, encoding="ascii")
            if dest.exists():
                shutil.rmtree(dest)
            os.replace(unpacked, dest)
    return dest


def python_packages(requirements) -> Path:
    """A directory for PYTHONPATH with these pinned packages, installed once per set and Python version."""
    wanted = sorted(requirements)
    key = hashlib.sha256("\n".join([sys.version, machine(), *wanted]).encode()).hexdigest()[:12]
    dest = directory("python") / key
    if dest.is_dir():
        return dest
    with lock("python"):
        if not dest.is_dir():
            with tempfile.TemporaryDirectory(prefix="pip-", dir=directory("tmp")) as work:
                made = Path(work) / "packages"
                pip("install", "--quiet", "--target", str(made), *wanted)
                made.chmod(0o755)
                os.replace(made, dest)
    return dest


def verb(main) -> None:
    """Run a script's main. A failure becomes one line and exit code 1; after Ctrl-C a line says how to continue."""
    try:
        sys.exit(main())
    except Failure as failure:
        say(f"error: {failure}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("\ninterrupted; the same command continues from here")
        sys.exit(130)
    except BrokenPipeError:
        # The reader (`| head`) has ended; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
