"""pgvector of Debian 13's source package, for a Debian that has no package of it.

apt checks the signature. It uses a list of sources and a directory of its own, so the system's lists do not change.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import state
from state import Failure, say

SUITE = "trixie"
SOURCES = f"""Types: deb-src
URIs: http://deb.debian.org/debian
Suites: {SUITE}
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def command(*words, **options) -> None:
    """Runs a command with its output on standard error. A failure names the command."""
    words = [str(word) for word in words]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    if subprocess.run(words, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=env, **options).returncode != 0:
        raise Failure(f"{' '.join(words[:2])} failed, so the tests can't run; what it says above names the cause")


def _source(pg_config: Path) -> Path:
    """The directory of the sources, unpacked and built once."""
    work = state.directory("debian", "pgvector")
    built = sorted(work.glob("pgvector-*/vector.so"))
    if built:
        return built[-1].parent
    say("fetching and building pgvector from Debian's source package ...")
    for old in work.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    (work / "lists" / "partial").mkdir(parents=True)
    (work / "pgvector.sources").write_text(SOURCES, encoding="utf-8")
    apt = ["apt-get", "-q", "-o", f"Dir::Etc::sourcelist={work / 'pgvector.sources'}", "-o", "Dir::Etc::sourceparts=/dev/null",
           "-o", f"Dir::State::lists={work / 'lists'}", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
           # apt's unprivileged user can't write to root's directory.
           "-o", "APT::Sandbox::User=root"]
    command(*apt, "update")
    command(*apt, "source", f"pgvector/{SUITE}", cwd=work)
    unpacked = next(path for path in work.glob("pgvector-*") if path.is_dir())
    # Without OPTFLAGS it would be built for this CPU only.
    command("make", "-s", "PROFILE=", f"PG_CONFIG={pg_config}", "OPTFLAGS=", "with_llvm=no", cwd=unpacked)
    return unpacked


def install(pg_config: Path) -> None:
    command("make", "-s", "PROFILE=", f"PG_CONFIG={pg_config}", "with_llvm=no", "install", cwd=_source(pg_config))


def uninstall(pg_config: Path) -> None:
    command("make", "-s", "PROFILE=", f"PG_CONFIG={pg_config}", "with_llvm=no", "uninstall", cwd=_source(pg_config))
