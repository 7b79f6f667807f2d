"""What `make uninstall` leaves, and how to remove it: the model, and lines that keep a server from starting."""

import os
import re
import shlex
from pathlib import Path

import postgres

# Where Debian's packages have the configuration and the data of their clusters.
CONFIGURATIONS = ("/etc/postgresql/{}/*/postgresql.conf", "/etc/postgresql/{}/*/conf.d/*.conf",
                  "/var/lib/postgresql/{}/*/postgresql.auto.conf")
PRELOAD = re.compile(r"^\s*(shared_preload_libraries|session_preload_libraries|local_preload_libraries)\s*=?.*gte-small",
                     re.IGNORECASE)


def model_place(pg_config: Path) -> Path:
    """Where a server looks for the model when gte_small.model_path is empty."""
    return Path(postgres.config(pg_config, "--sharedir")) / "gte-small"


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def preloads(pg_config: Path, root: Path = Path("/")) -> list:
    """The lines that preload the library, as (file, number, line), in the files that the caller can read."""
    version = postgres.pg_version(pg_config)
    files = [path for pattern in CONFIGURATIONS for path in sorted(root.glob(pattern.format(version)[1:]))]
    if os.environ.get("PGDATA"):
        files += [Path(os.environ["PGDATA"]) / name for name in ("postgresql.conf", "postgresql.auto.conf")]
    found = []
    for path in files:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        found += [(path, number, line.strip()) for number, line in enumerate(lines, 1) if PRELOAD.search(line)]
    return found


def described(pg_config: Path) -> str:
    """The text for the user."""
    said = []
    place = model_place(pg_config)
    if place.is_symlink() or place.is_dir():
        said.append(f"The model is left in {place} ({_size(place) / 1e6:.0f} MB). To remove it:\n"
                    f"  sudo rm -r {shlex.quote(str(place))}")
    said += [f"{path}, line {number}, names gte-small; take it out, or the server does not start:\n  {line}"
             for path, number, line in preloads(pg_config)]
    said.append("A server or session that preloads gte-small does not start without the library. Take gte-small out of\n"
                "shared_preload_libraries and session_preload_libraries, in postgresql.conf, in postgresql.auto.conf "
                "(alter system)\nand in the settings of roles and databases (\\drds).\n"
                'A database that still has the extension:  drop extension "gte-small" cascade;')
    return "\n".join(said)
