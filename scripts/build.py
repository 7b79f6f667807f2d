"""Build the extension for one PostgreSQL and install it there.

    build.py build        build, and keep the library for an installation by another user
    build.py install      build if needed, and install; DESTDIR=directory is put before every path
    build.py uninstall    remove the installed files, and say what is left

Everything that can be checked is checked first: a build takes minutes.

It needs cargo, a C compiler and PostgreSQL's headers, but no cargo-pgrx. bindgen reads the headers with libclang, which is
fetched from PyPI, pinned, unless LIBCLANG_PATH names one.
"""

import hashlib
import json
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import built
import postgres
import prerequisites
import remains
import state
import versions
from state import CLONE, Failure, say

LIBCLANG = "libclang==18.1.1"
# On macOS bindgen finds the libclang of the command line tools.
LIBCLANG_WHEELS = {
    "linux-x86_64": ("manylinux2010_x86_64", "c533091d8a3bbf7460a00cb6c1a71da93bffe148f172c7d03b1c31fbf8aa2a0b"),
    "linux-aarch64": ("manylinux2014_aarch64", "54dda940a4a0491a9d1532bf071ea3ef26e6dbaf03b5000ed94dd7174e8f9592"),
}
CONTROL = "gte-small.control"


def cargo() -> str:
    """The cargo that builds; fails if there is none."""
    found = prerequisites.find_cargo()
    if not found:
        prerequisites.refuse(prerequisites.rust(), "nothing can be built")
    return found


def _compiler_headers() -> str:
    """The directory of stddef.h: the libclang from PyPI has no compiler headers."""
    compiler = prerequisites.find_compiler()
    if not compiler:
        prerequisites.refuse(prerequisites.c_compiler(), "nothing can be built")
    return subprocess.run([compiler, "-print-file-name=include"], capture_output=True, text=True, check=True).stdout.strip()


def environment(pg_config=None) -> dict:
    """The environment variables for cargo; with pg_config also those for building the extension."""
    env = dict(os.environ)
    cargo_bin = str(Path(cargo()).parent)
    if cargo_bin not in env.get("PATH", "").split(os.pathsep):
        env["PATH"] = env.get("PATH", "") + os.pathsep + cargo_bin
    if pg_config is None:
        return env
    env["PGRX_PG_CONFIG_PATH"] = str(pg_config)
    machine = state.machine()
    if not env.get("LIBCLANG_PATH") and machine in LIBCLANG_WHEELS:
        tag, digest = LIBCLANG_WHEELS[machine]
        unpacked = state.STATE / "libclang"
        if not unpacked.exists():
            say("fetching libclang from PyPI (24 MB) ...")
        state.wheel(LIBCLANG, digest, unpacked, platform=tag)
        native = next(unpacked.glob("**/clang/native"))
        env["LIBCLANG_PATH"] = str(native)
        # bindgen splits this like a shell, hence the quotes.
        include = f'-I"{_compiler_headers()}"'
        env["BINDGEN_EXTRA_CLANG_ARGS"] = " ".join(filter(None, [env.get("BINDGEN_EXTRA_CLANG_ARGS"), include]))
    return env


def build(pg_config: Path, profile: str = "fast") -> Path:
    """Build the extension; returns the library. Cargo does nothing if nothing changed."""
    prerequisites.refuse([*prerequisites.headers(pg_config), *prerequisites.build_tools()], "nothing was built")
    feature = f"pg{postgres.pg_version(pg_config)}"
    # JSON on standard output names the artifact; progress and messages go to standard error as usual.
    command = [cargo(), "build", "--profile", profile, "-p", "gte-small", "--lib", "--no-default-features",
               "--features", feature, "--message-format=json-render-diagnostics"]
    library = None
    with subprocess.Popen(command, cwd=CLONE, env=environment(pg_config), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            message = json.loads(line) if line.startswith("{") else {}
            if message.get("reason") == "compiler-artifact" and message["target"]["name"] == "gte_small":
                library = next((f for f in message["filenames"] if f.endswith((".so", ".dylib"))), library)
    if process.returncode != 0:
        raise Failure(f"cargo could not build the extension for {pg_config}; what it says above names the cause")
    if library is None:
        raise Failure("cargo built no library gte_small; the crate type cdylib is gone from Cargo.toml")
    return Path(library)


def _files(pg_config: Path) -> dict:
    """The contents of every file but the library, by its installed place."""
    extension = Path(postgres.config(pg_config, "--sharedir")) / "extension"
    files = {CONTROL: (CLONE / CONTROL).read_bytes(), **versions.contents()}
    return {extension / name: content for name, content in files.items()}


def sql_fingerprint() -> str:
    """A hash that changes with the extension's SQL, also if the version stays the same."""
    return hashlib.sha256(versions.install_script().encode()).hexdigest()


def library_place(pg_config: Path) -> Path:
    suffix = ".dylib" if sys.platform == "darwin" and postgres.pg_version(pg_config) >= 16 else ".so"
    return Path(postgres.config(pg_config, "--pkglibdir")) / f"gte-small{suffix}"


def _put(content: bytes, target: Path, mode: int) -> None:
    """Write a temporary file and rename it: servers keep the library they have mapped, and no reader sees half a file."""
    handle, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
        os.chmod(beside, mode)
        os.replace(beside, target)
    except BaseException:
        os.unlink(beside)
        raise


def below(destdir: str, path: Path) -> Path:
    """The path in the directory DESTDIR, as packagers use it."""
    return Path(destdir).absolute() / path.relative_to(path.anchor) if destdir else path


def install(pg_config: Path, library: Path, destdir: str = "") -> bool:
    """Install library, control and SQL in this PostgreSQL; True if the library changed. Equal files are not written again."""
    place = below(destdir, library_place(pg_config))
    wanted = {place: library.read_bytes(), **{below(destdir, path): content for path, content in _files(pg_config).items()}}
    changed = [target for target, content in wanted.items() if not target.is_file() or target.read_bytes() != content]
    for folder in {target.parent for target in changed}:
        if destdir:
            folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise Failure(f"you may not write to {folder}, so gte-small is built but not installed; use  sudo make install")
    for target in changed:
        _put(wanted[target], target, 0o755 if target == place else 0o644)
    return place in changed


def installed_files(pg_config: Path, destdir: str = "") -> list:
    """The installed files, with the SQL of every other version."""
    extension = below(destdir, Path(postgres.config(pg_config, "--sharedir")) / "extension")
    there = [below(destdir, library_place(pg_config)), extension / CONTROL, *sorted(extension.glob("gte-small--*.sql"))]
    return [path for path in there if path.exists()]


def uninstall(pg_config: Path, destdir: str = "") -> list:
    """Remove the installed files; returns the paths. All or none: the rights are checked first."""
    there = installed_files(pg_config, destdir)
    folders = sorted({str(path.parent) for path in there if not os.access(path.parent, os.W_OK)})
    if folders:
        raise Failure(f"you may not remove files from {' and '.join(folders)}, so nothing was removed:\n"
                      f"  sudo {verb('uninstall', pg_config)}")
    for path in there:
        path.unlink()
    return there


def verb(name: str, pg_config: Path, profile: str = "release") -> str:
    """The command line of a verb for this PostgreSQL."""
    return f"make {name} PG_CONFIG={shlex.quote(str(pg_config))}{'' if profile == 'release' else f' PROFILE={profile}'}"


def own_pg_config() -> Path:
    """PG_CONFIG, else the pg_config on PATH: the verbs of installing use the user's PostgreSQL, never the embedded one."""
    prerequisites.refuse(prerequisites.pg_config(), "there is no PostgreSQL to work with")
    os.environ["PG_CONFIG"] = os.environ.get("PG_CONFIG") or shutil.which("pg_config")
    return postgres.find_pg_config()


def wanted_profile() -> str:
    """PROFILE; `fast` is what the tests build, without link-time optimization."""
    profile = os.environ.get("PROFILE") or "release"
    if profile not in built.PROFILES:
        raise Failure(f"PROFILE={profile} is neither release nor fast; leave it out")
    return profile


def owner_of_the_clone() -> str:
    """The user who builds, if root is not to: what root builds in another user's clone, that user can't replace."""
    owner = CLONE.stat().st_uid
    if os.geteuid() != 0 or owner == 0:
        return ""
    try:
        return pwd.getpwuid(owner).pw_name
    except KeyError:
        return str(owner)


def _to_build(pg_config: Path, profile: str) -> list:
    """What is missing for a build by this user."""
    owner = owner_of_the_clone()
    if not owner:
        return [*prerequisites.headers(pg_config), *prerequisites.build_tools()]
    other = built.other_profile(pg_config, profile)
    instead = f"  (or install what PROFILE={other} has built:  sudo {verb('install', pg_config, other)})" if other else ""
    return [f"gte-small is not built from the sources as they are now:  {verb('build', pg_config, profile)}  as {owner}, "
            f"then this command again{instead}"]


def _places(pg_config: Path) -> set:
    return {library_place(pg_config).parent, Path(postgres.config(pg_config, "--sharedir")) / "extension"}


def _for_a_server(pg_config: Path) -> list:
    """What a server with the extension needs and this machine has not."""
    return [*prerequisites.server(pg_config, _places(pg_config)), *prerequisites.pgvector(pg_config)]


def _to_install(pg_config: Path, destdir: str, profile: str, is_built: bool) -> list:
    """What is missing for the installation of a library: a server with pgvector, and the right to write."""
    if destdir:
        top = next(path for path in [Path(destdir).absolute(), *Path(destdir).absolute().parents] if path.exists())
        return [] if os.access(top, os.W_OK) else [f"you may not write to {top}:  name another DESTDIR"]
    missing = _for_a_server(pg_config)
    # The server's package will make a directory that is not there, and it belongs to root as its parents do.
    existing = {path: next(up for up in [path, *path.parents] if up.exists()) for path in _places(pg_config)}
    refused = sorted(str(path) for path, up in existing.items() if not os.access(up, os.W_OK))
    if refused:
        then = f"sudo {verb('install', pg_config, profile)}"
        missing.append(f"the right to write to {' and '.join(refused)}:  "
                       f"{then if is_built else verb('build', pg_config, profile) + ' && ' + then}")
    return missing


def is_older(before: str) -> bool:
    return bool(before) and versions.key(before) < versions.key(versions.in_work())


def next_statements(before: str) -> str:
    """What to type after an installation in place of the version `before`; empty if there was none."""
    said = ('Next, in a database, as a superuser:\n'
            '  create extension "gte-small" cascade;\n'
            '  select * from embed_selftest();')
    if is_older(before):
        said = (f"Version {before} was there. Next, in each database that has it, as a superuser:\n"
                '  alter extension "gte-small" update;\n'
                '  select * from refresh_semantic_search();\n'
                "A server with gte-small in shared_preload_libraries must be restarted first. Sessions that are open now keep "
                f"the old library.\n{said.replace('in a database', 'in a database without it')}")
    return said


def make_library(pg_config: Path, profile: str) -> Path:
    """The built library: the kept one, or a new one."""
    kept = built.library(pg_config, profile)
    if kept:
        return kept
    sources = built.fingerprint(pg_config)
    return built.keep(pg_config, profile, build(pg_config, profile), sources)


def build_verb() -> None:
    profile = wanted_profile()
    absent = prerequisites.pg_config()
    prerequisites.refuse([*absent, *prerequisites.build_tools()] if absent else [], "nothing was built")
    pg_config = own_pg_config()
    if not built.library(pg_config, profile):
        prerequisites.refuse(_to_build(pg_config, profile), "nothing was built")
        # A build needs neither, and a machine that only builds has neither. Others can get them meanwhile.
        for line in _for_a_server(pg_config):
            say(f"note: make install will need this: {line}")
    library = make_library(pg_config, profile)
    # Again, because the first note is far above.
    needed = "".join(f"  {line}\n" for line in _for_a_server(pg_config))
    say(f"gte-small {versions.in_work()} is built for {postgres.config(pg_config, '--version')}. Next:\n{needed}"
        f"  sudo {verb('install', pg_config, profile)}")
    print(library)


def install_verb(destdir: str) -> None:
    profile = wanted_profile()
    absent = prerequisites.pg_config()
    prerequisites.refuse([*absent, *prerequisites.build_tools()] if absent else [], "nothing was built or installed")
    pg_config = own_pg_config()
    is_built = built.library(pg_config, profile) is not None
    missing = [] if is_built else _to_build(pg_config, profile)
    prerequisites.refuse([*missing, *_to_install(pg_config, destdir, profile, is_built)],
                         "nothing was installed" if is_built else "nothing was built or installed")
    control = below(destdir, Path(postgres.config(pg_config, "--sharedir")) / "extension" / CONTROL)
    before = versions.default_version(control)
    install(pg_config, make_library(pg_config, profile), destdir)
    if destdir:
        say(f"gte-small {versions.in_work()} for {postgres.config(pg_config, '--version')} is in {destdir}")
        return
    # Root does not fetch in another user's clone.
    owner = owner_of_the_clone()
    fetch = f"make model  as {owner}, then  sudo " if owner else ""
    say(f"gte-small {versions.in_work()} is installed in {postgres.config(pg_config, '--version')} ({pg_config}).\n"
        f"{next_statements(before)}\n"
        f"The model, once per server:  {fetch}{verb('install-model', pg_config)}")
    note = prerequisites.pgvector_note(pg_config)
    if note:
        say(note)


def uninstall_verb(destdir: str) -> None:
    pg_config = own_pg_config()
    removed = uninstall(pg_config, destdir)
    say("\n".join(f"removed {path}" for path in removed) or "gte-small was not installed there")
    if not destdir:
        say(remains.described(pg_config))


VERBS = {"build": lambda _: build_verb(), "install": install_verb, "uninstall": uninstall_verb}


def main() -> int:
    action = sys.argv[1] if len(sys.argv) == 2 else ""
    if action not in VERBS:
        raise Failure(f"usage: build.py {'|'.join(VERBS)}")
    VERBS[action](os.environ.get("DESTDIR", ""))
    return 0


if __name__ == "__main__":
    state.verb(main)
