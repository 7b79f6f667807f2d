"""pgvector of Debian 13's source package, for a Debian that has no package of it.

apt checks the signature. It uses a list of sources and a directory of its own, so the system's lists do not change.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import install_page
import postgres
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


def _source() -> Path:
    """A directory with the sources as `pgvector`, as the page's `git clone` leaves them; they are fetched once."""
    work = state.directory("debian", "pgvector")
    if (work / "pgvector" / "Makefile").is_file():
        return work
    say("fetching pgvector from Debian's source package ...")
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
    next(path for path in work.glob("pgvector-*") if path.is_dir()).rename(work / "pgvector")
    return work


def install(pg_config: Path) -> None:
    """By the commands of docs/install.md, but for those of apt and git."""
    commands = [line for line in install_page.block("pgvector/pgvector") if line.removeprefix("sudo ").startswith("make ")]
    install_page.run(install_page.for_root(commands, postgres.pg_version(pg_config)), _source())


def uninstall(pg_config: Path) -> None:
    install_page.run(f"make -s -C pgvector uninstall PG_CONFIG={pg_config}", _source())
