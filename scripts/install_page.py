"""The commands of docs/install.md: for the tests that run them, and for those that hold them against the code.

The page is written for a user with sudo, for PostgreSQL 15 and for gte-small. A test runs its commands as root, for another
version, with the model that it has.
"""

import os
import re
from pathlib import Path

import docs_page
import tally
from state import CLONE, Failure

PAGE = CLONE / "docs" / "install.md"
# The version of PostgreSQL in the page's commands.
WRITTEN_FOR = "15"
# What a test can't do: the network that it needs is not there everywhere.
FETCHING = re.compile(r"^(git clone|curl) ")
# Variables of the make that runs a test, which the reader of the page has not.
OF_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PG", "PG_CONFIG", "DESTDIR", "PROFILE", "MODEL", "MODEL_DIR", "FROM")


def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def section(title: str) -> str:
    return docs_page.section(PAGE, title)


def blocks(page: str) -> list:
    """The shell blocks of a page or section, each as the list of its commands."""
    return [block.text.splitlines() for block in docs_page.parse(page)[0] if block.kind == "sh"]


def block(part: str) -> list:
    """The commands of the one shell block that has this text."""
    found = [commands for commands in blocks(text()) if part in "\n".join(commands)]
    if len(found) != 1:
        raise Failure(f"{PAGE} has {len(found)} shell blocks with {part!r}, and a test needs the one")
    return found[0]


def for_root(commands, version: int, **replaced) -> str:
    """A script of these commands as root types them. `replaced`: words of the page and what they are here."""
    script = "\n".join(line for line in commands if not FETCHING.match(line)).replace("sudo ", "")
    script = re.sub(rf"\b{WRITTEN_FOR}\b", str(version), script)
    for written, meant in replaced.items():
        script = script.replace(written, meant)
    return script


def run(script: str, cwd: Path = CLONE, **variables) -> str:
    """Runs a script of the page's commands; returns what it prints. A command that fails is a Failure that shows it."""
    env = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
    env.update(DEBIAN_FRONTEND="noninteractive", LC_ALL="C.UTF-8", **variables)
    code, said = tally.run(["bash", "-euxo", "pipefail", "-c", script], env, cwd)
    if code != 0:
        raise Failure(f"a command of docs/install.md failed; it ends with\n{said[-1500:]}")
    return said
