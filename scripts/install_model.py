"""`make install-model`: put a model where a server of PG_CONFIG finds it.

    MODEL=name         gte-small (the default) or all-MiniLM-L6-v2
    MODEL_DIR=dir      a directory
    FROM=archive       a file of make model-archive
    DESTDIR=dir        put before every path
    REPLACE=1          replace another model

Permission, files and hub are checked before anything is built or fetched.
"""

import filecmp
import os
import shlex
import shutil
import tempfile
from pathlib import Path

import build
import hub
import model
import model_archive
import postgres
import prerequisites
import remains
import state
from state import CLONE, Failure, say


def asked() -> str:
    """The value of FROM as an absolute path; empty without it."""
    archive = os.environ.get("FROM", "")
    wanted = model.asked()
    if archive and wanted:
        raise Failure(f"FROM={archive} and {wanted} name two models; name one")
    return str(Path(archive).expanduser().absolute()) if archive else ""


def places(name: str) -> list:
    """Where `make model` puts a model for this user, and for the user of the clone."""
    return [model.place_of(name), CLONE / "target" / "state" / "models" / name]


def fetched() -> Path:
    """gte-small as `make model` has fetched it for this user, or for the user of the clone; None if it is not here."""
    return next((place for place in places(model.GTE_SMALL) if model.is_gte_small(place)), None)


def source(work: Path) -> tuple:
    """The name and the directory of the model that is wanted; `work` takes what is unpacked."""
    archive, wanted = asked(), model.asked()
    if archive:
        say(f"checking {archive} ...")
        name, path = model_archive.unpack(Path(archive), work)
        model.checked(path, f"FROM={archive}")
        return name, path
    if os.sep in wanted:
        path = Path(wanted)
        model.checked(path, f"MODEL_DIR={path}")
        return path.name, path
    if wanted == model.MINILM:
        there = next((place for place in places(model.MINILM) if model.is_minilm(place)), None)
        return model.MINILM, there or model.minilm()
    return model.GTE_SMALL, fetched() or _fetch()


def _fetch() -> Path:
    """Fetches gte-small. Root leaves it to the user of the clone, because it builds a program first."""
    owner = build.owner_of_the_clone()
    if owner:
        no_hub = hub.unreachable()
        raise model.Unreachable(f"{no_hub}\n  {model.WITHOUT_A_HUB}") if no_hub else Failure(
            f"gte-small is not fetched yet, so nothing was installed:  make model  as {owner}, then this command again")
    return model.gte_small(verify=True)


def _place(pg_config: Path, destdir: str) -> Path:
    """Where a server looks for the model. A link there, as Debian's package has it, is followed."""
    place = build.below(destdir, remains.model_place(pg_config))
    return Path(os.path.realpath(place)) if place.is_symlink() else place


def _check_the_place(place: Path, destdir: str) -> None:
    if destdir:
        place.parent.mkdir(parents=True, exist_ok=True)
    if not place.parent.is_dir():
        raise Failure(f"{place.parent} is missing, so no server of this PostgreSQL is here; install it, or name another "
                      "with PG_CONFIG=/path/to/pg_config")
    if os.access(place.parent, os.W_OK):
        return
    variables = [f"{name}={shlex.quote(os.environ[name])}" for name in ("PG_CONFIG", "MODEL", "MODEL_DIR", "FROM", "REPLACE")
                 if os.environ.get(name)]
    command = f"sudo make install-model {' '.join(variables)}"
    first = "" if asked() or model.asked() or fetched() else "make model && "
    raise Failure(f"you may not write to {place.parent}, so no model was fetched or installed:\n  {first}{command}")


def install(name: str, path: Path, place: Path, replace: bool = False) -> bool:
    """Installs the model; False if it is there already. Another model stays, unless it is to be replaced."""
    names = model.checked(path, name)
    there = [file for file in (*model.REQUIRED, *model.OPTIONAL) if (place / file).exists()]
    if sorted(there) == sorted(names) and all(filecmp.cmp(path / file, place / file, shallow=False) for file in names):
        return False
    if set(model.REQUIRED) <= set(there) and not replace:
        raise Failure(f"another model is in {place}, and vectors of two models cannot be compared, so it stays; REPLACE=1 "
                      "replaces it, and then every row must be embedded again")
    model.put_in_place(path, names, place, shutil.copyfile)
    return True


def main() -> int:
    prerequisites.refuse(prerequisites.pg_config(), "no model was fetched or installed")
    pg_config, destdir = build.own_pg_config(), os.environ.get("DESTDIR", "")
    place = _place(pg_config, destdir)
    _check_the_place(place, destdir)
    with tempfile.TemporaryDirectory(prefix="model-", dir=state.directory("tmp")) as work:
        name, path = source(Path(work))
        fresh = install(name, path, place, replace=bool(os.environ.get("REPLACE")))
    say(f"{name} {'is in' if fresh else 'was already in'} {place}")
    if not destdir:
        say(f"Every server of {postgres.config(pg_config, '--version')} looks there if gte_small.model_path is empty.\n"
            "Open sessions, and a server that preloads the library, keep the model that they have loaded.")
    return 0


if __name__ == "__main__":
    state.verb(main)
