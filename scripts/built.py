"""What `make build` has built, in target/built: one library for each PostgreSQL version and profile.

A stamp beside a library says what it was made of. `make install` takes a library whose stamp is right, so it needs no cargo:
`sudo make install` installs what a plain user has built.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import postgres
from state import CLONE

# Everything that cargo reads for the library.
SOURCES = ("Cargo.toml", "Cargo.lock", "src", "engine/Cargo.toml", "engine/src", "pgvector-compat",
           "sql/extension")
PROFILES = ("release", "fast")
HOME = CLONE / "target" / "built"


def _place(pg_config: Path, profile: str) -> Path:
    return HOME / f"pg{postgres.pg_version(pg_config)}-{profile}"


def _files() -> list:
    found = []
    for name in SOURCES:
        path = CLONE / name
        found += [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sorted(found)


def fingerprint(pg_config: Path) -> str:
    """A hash that changes with the sources, and with the PostgreSQL whose headers the library is for."""
    digest = hashlib.sha256(postgres.config(pg_config, "--includedir-server").encode())
    for path in _files():
        digest.update(f"\0{path.relative_to(CLONE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def library(pg_config: Path, profile: str):
    """The library of this profile, if it is built from the sources as they are now; else None."""
    place = _place(pg_config, profile)
    try:
        stamp = json.loads((place / "stamp.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    path = place / "gte-small.so"
    current = stamp.get("sources") == fingerprint(pg_config) and path.is_file() and path.stat().st_size == stamp.get("size")
    return path if current else None


def other_profile(pg_config: Path, profile: str) -> str:
    """Another profile whose library could be installed; empty if there is none."""
    return next((name for name in PROFILES if name != profile and library(pg_config, name)), "")


def keep(pg_config: Path, profile: str, made: Path, sources: str) -> Path:
    """Keeps a copy of a built library; cargo's own file changes with the next build. `sources`: the hash before the build."""
    place = _place(pg_config, profile)
    place.mkdir(parents=True, exist_ok=True)
    stamp, path = place / "stamp.json", place / "gte-small.so"
    stamp.unlink(missing_ok=True)
    shutil.copyfile(made, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)
    for folder in (place, HOME, HOME.parent):
        folder.chmod(folder.stat().st_mode | 0o055)
    path.chmod(0o755)
    stamp.write_text(json.dumps({"sources": sources, "size": path.stat().st_size}), encoding="utf-8")
    return path
