"""`make model-archive`: a model directory as one file, which `make install-model FROM=file` takes on another machine.

    model_archive.py    write the archive of the model that MODEL or MODEL_DIR names, by default gte-small

It is a tar with one folder. The first file in it, SHA256SUMS, has the hashes of the others in the format of sha256sum. The
same model gives the same bytes.
"""

import hashlib
import io
import re
import tarfile
from pathlib import Path

import model
import state
from state import CLONE, Failure, say

SUMS = "SHA256SUMS"
BLOCK = 1 << 20


def make(directory: Path, name: str, target: Path) -> str:
    """Writes the archive of this model; returns its sha256. It appears complete or not at all."""
    names = sorted(model.checked(directory, f"the model {name}"))
    sums = "".join(f"{state.sha256(directory / file)}  {file}\n" for file in names).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(".new")
    with tarfile.open(fresh, "w", format=tarfile.USTAR_FORMAT) as archive:
        _add(archive, f"{name}/{SUMS}", len(sums), io.BytesIO(sums))
        for file in names:
            with open(directory / file, "rb") as content:
                _add(archive, f"{name}/{file}", (directory / file).stat().st_size, content)
    fresh.replace(target)
    return state.sha256(target)


def _add(archive, name: str, size: int, content) -> None:
    """Adds a file without its time and owner, which would make the bytes differ."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    archive.addfile(entry, content)


def unpack(path: Path, into: Path) -> tuple:
    """Unpacks an archive into the directory `into`; returns the model's name and its directory.

    Only the files of a model are written, and every one has the hash that the archive names.
    """
    if not path.is_file():
        raise Failure(f"FROM={path} is no file, so there is no archive; name one that make model-archive has written "
                      "(MODEL_DIR= takes a directory)")
    try:
        return _unpack(path, into)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise Failure(f"FROM={path} is no archive of make model-archive, or a part of one ({error}); nothing was installed. "
                      "Copy it again") from None


def _unpack(path: Path, into: Path) -> tuple:
    wanted, found, folder = {}, {}, ""
    with tarfile.open(path, "r:*") as archive:
        for entry in archive:
            top, _, name = entry.name.partition("/")
            if entry.isdir() and name in ("", "1_Pooling"):
                continue
            known = name in (SUMS, *model.REQUIRED, *model.OPTIONAL)
            if not entry.isreg() or not known or top in ("", ".", "..") or top != (folder or top) or name in found:
                raise ValueError(f"the entry {entry.name!r} is not of a model")
            folder = top
            content = archive.extractfile(entry)
            if name == SUMS:
                wanted = {file: digest for digest, file in re.findall(r"^([0-9a-f]{64})  (\S+)$", content.read(BLOCK).decode(),
                                                                      re.MULTILINE)}
                continue
            target = into / folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with open(target, "wb") as out:
                while block := content.read(BLOCK):
                    digest.update(block)
                    out.write(block)
            found[name] = digest.hexdigest()
    if not wanted:
        raise ValueError(f"it has no {SUMS}")
    wrong = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    if wrong:
        raise ValueError(f"{wrong[0]} does not have the hash in {SUMS}")
    return folder, into / folder


def main() -> int:
    choice = model.choose(model.asked(), stand_in=False)
    target = CLONE / "target" / "dist" / f"{choice['name']}-model.tar"
    digest = make(Path(choice["path"]), choice["name"], target)
    say(f"{target.stat().st_size / 1e6:.0f} MB, sha256 {digest}. On the other machine:\n"
        f"  sudo make install-model FROM={target.name}\nThe archive is")
    print(target)
    return 0


if __name__ == "__main__":
    state.verb(main)
