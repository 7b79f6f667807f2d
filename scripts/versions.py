"""The SQL scripts of all versions, which an installation puts into the server's share directory.

    versions.py freeze    store the scripts of the version in work, which is being released

The version in work is the one in gte-small.control. Its scripts are made from sql/extension: the install script, and the
update script from the last released version, which begins with the statements in sql/update. So a change of the SQL changes
both. The scripts of released versions are in sql/released and never change.
"""

import re
import sys
from pathlib import Path

import state
from state import CLONE, Failure, say

CONTROL = CLONE / "gte-small.control"
EXTENSION, UPDATE, RELEASED = (CLONE / "sql" / name for name in ("extension", "update", "released"))


def in_work() -> str:
    """The version in work."""
    return default_version(CONTROL)


def default_version(control: Path) -> str:
    """The version that a control file names; empty if there is no such file."""
    text = control.read_text(encoding="utf-8") if control.is_file() else ""
    found = re.search(r"^default_version *= *'(.+)'", text, re.MULTILINE)
    return found[1] if found else ""


def key(version: str) -> list:
    """For sorting: 0.10.0 comes after 0.9.0."""
    return [int(part) for part in re.findall(r"\d+", version)]


def released() -> list:
    """The released versions, the oldest first."""
    names = [path.stem.split("--") for path in RELEASED.glob("gte-small--*.sql")]
    return sorted((parts[1] for parts in names if len(parts) == 2), key=key)


def install_script() -> str:
    """What CREATE EXTENSION runs: the files of sql/extension in their order."""
    parts = sorted(EXTENSION.glob("*.sql"))
    return "\n".join(part.read_text(encoding="utf-8") for part in parts)


def update_script() -> str:
    """What ALTER EXTENSION UPDATE runs: the head written by hand, then the install script with OR REPLACE.

    A function that is replaced keeps its OID, so triggers, views, indexes and prepared statements go on with it. In an
    extension's script PostgreSQL (14.5 and later) replaces only functions of this extension, so a planted function is an
    error, as with CREATE. The check for planted types and operators is right in an update too. The head drops what OR
    REPLACE can't change: the names and types of arguments, a default that is gone, the type of the result.
    """
    head = _head().read_text(encoding="utf-8")
    if not head.startswith("\\echo Use \"ALTER EXTENSION"):
        raise Failure(f"{_head()} must begin with the line \\echo Use \"ALTER EXTENSION ... \\quit")
    body = re.sub(r"^\\echo .*\n", "", install_script(), flags=re.MULTILINE)
    return head + "\n" + re.sub(r"^CREATE (FUNCTION|PROCEDURE) ", r"CREATE OR REPLACE \1 ", body, flags=re.MULTILINE)


def _head() -> Path:
    """The statements by which the update to the version in work begins."""
    wanted = UPDATE / f"{released()[-1]}--{in_work()}.sql"
    there = sorted(UPDATE.glob("*.sql"))
    if there != [wanted]:
        raise Failure(f"{UPDATE} must have the file {wanted.name} and no other: {released()[-1]} is the last released version "
                      f"and {in_work()} the version in work (gte-small.control)")
    return wanted


def scripts() -> dict:
    """The text of each script of the version in work, by its file name."""
    version = in_work()
    made = {f"gte-small--{version}.sql": install_script()}
    if version not in released():
        return {**made, f"gte-small--{_head().stem}.sql": update_script()}
    for name, text in made.items():
        if (RELEASED / name).read_text(encoding="utf-8") != text:
            raise Failure(f"version {version} is released, so its SQL must not change any more; begin the next version "
                          "(DEVELOPING.md, A release)")
    return {}


def contents() -> dict:
    """Every script by the name that PostgreSQL expects, as bytes."""
    stored = {path.name: path.read_bytes() for path in sorted(RELEASED.glob("gte-small--*.sql"))}
    return {**stored, **{name: text.encode() for name, text in scripts().items()}}


def freeze() -> None:
    """Store the scripts of the version in work in sql/released. The head is part of its update script by now, and goes."""
    made = scripts()
    if not made:
        raise Failure(f"version {in_work()} is released already")
    head = _head()
    for name, text in made.items():
        (RELEASED / name).write_text(text, encoding="utf-8")
        say(f'    "{name}": "{state.sha256(RELEASED / name)}",')
    head.unlink()
    say("add the lines above to RELEASED in tests/e2e/test_upgrade.py")


def main() -> int:
    if sys.argv[1:] != ["freeze"]:
        raise Failure("usage: versions.py freeze")
    freeze()
    return 0


if __name__ == "__main__":
    state.verb(main)
