"""gte-model, built once, and a local hub for every test.

Run by `make test`, or alone: python3 scripts/test.py --only hub
"""

import concurrent.futures
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

CLONE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CLONE / "scripts"))

import model  # noqa: E402  scripts/model.py
from local_hub import REPO, BlackHole, LocalHub, Proxy  # noqa: E402

WEIGHTS = "model.safetensors"
FILES = {
    "config.json": b'{"hidden_size": 384}\n',
    "sentence_bert_config.json": b'{"max_seq_length": 512}\n',
    "tokenizer.json": random.Random(1).randbytes(3_000),
    # Enough bytes for several reads and a cut in the middle; not a multiple of a buffer's size.
    WEIGHTS: random.Random(2).randbytes(1_500_007),
}
# What a model with another pooling or with prompts has, too.
PIPELINE = {
    "modules.json": b"[]\n",
    "1_Pooling/config.json": b'{"pooling_mode_cls_token": true}\n',
    "config_sentence_transformers.json": b'{"prompts": {}}\n',
}
# Each test sets the variables of the network itself.
OURS = {"HF_HOME", "HF_ENDPOINT", "HF_TOKEN", "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"}
# gte-model's default timeouts, in seconds. Only tests of a silent hub shorten them, so that a busy machine fails no other test.
DEFAULT_PATIENCE = 20
# Long enough for a busy machine, short enough for a test of a silent hub.
PATIENCE = 1.5
SHORT_CONTACT = ["--connect-timeout", PATIENCE]
# The first content may take longer than the next.
SHORT_STALL = ["--connect-timeout", 2 * PATIENCE, "--stall-timeout", PATIENCE]


def content(directory) -> dict:
    """The files of a model directory by their names in it."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


class Address:
    """A hub that has only an address."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.manifest = LocalHub.manifest.__get__(self)
        self.files, self.repo, self.revision = FILES, REPO, "0" * 40


@dataclass
class Outcome:
    code: int
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> str:
        return self.out + self.err


class Fetching:
    """gte-model fetch with its own home directory; `dir` is the directory of the model."""

    def __init__(self, tool, work):
        self.tool, self.work = tool, work
        self.home = work / "hf-home"
        self.dir = work / "models" / "tiny"
        self.manifest = work / "manifest.json"

    def command(self, *options, to=None):
        manifest = ["--manifest", self.manifest] if self.manifest.exists() else []
        return [str(part) for part in [self.tool, "fetch", "--to", to or self.dir, *manifest, *options]]

    def environment(self, endpoint, variables):
        kept = {k: v for k, v in os.environ.items() if k.upper() not in OURS}
        return {**kept, "HOME": str(self.work), "HF_HOME": str(self.home), "HF_ENDPOINT": endpoint, **variables}

    def start(self, hub, *options, to=None, **variables):
        if not self.manifest.exists():
            self.manifest.write_text(hub.manifest())
        # A shell starts background processes with SIGINT ignored, and the processes of the tests would inherit it.
        return subprocess.Popen(self.command(*options, to=to), env=self.environment(hub.endpoint, variables),
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))

    def __call__(self, hub, *options, to=None, **variables) -> Outcome:
        began = time.monotonic()
        process = self.start(hub, *options, to=to, **variables)
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            raise
        return Outcome(process.returncode, out, err, time.monotonic() - began)

    def parts(self) -> list:
        """The files of unfinished downloads."""
        return sorted(self.home.rglob("*.part"))

    def cached(self) -> list:
        """The finished downloads."""
        return sorted(p for p in self.home.rglob("blobs/*") if p.suffix not in (".part", ".lock"))

    def left_nothing(self) -> bool:
        """Checks that there is no model directory, and no directory beside it that looks like one."""
        return not self.dir.parent.exists() or not list(self.dir.parent.iterdir())

    def holds(self, files, directory=None) -> bool:
        directory = directory or self.dir
        return content(directory) == files


@pytest.fixture(scope="session")
def tool():
    return model.tool()


@pytest.fixture
def fetch(tool, tmp_path):
    return Fetching(tool, tmp_path)


@pytest.fixture(scope="session", autouse=True)
def patient_fetch(tool, tmp_path_factory):
    """A fetch from a hub that never answers, with the default timeouts. The value is a function: it waits for the Outcome.

    It starts before the first test and waits while the others run.
    """
    hole = BlackHole()
    fetching = Fetching(tool, tmp_path_factory.mktemp("patient"))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield pool.submit(fetching, Address(hole.endpoint)).result
    hole.close()


@pytest.fixture
def hub():
    """A hub that serves FILES."""
    served = LocalHub(FILES)
    yield served
    served.close()


@pytest.fixture
def private_hub():
    """A hub that requires a token."""
    served = LocalHub(FILES, token="hf_right")
    yield served
    served.close()


@pytest.fixture
def black_hole():
    hole = BlackHole()
    yield hole
    hole.close()


@pytest.fixture
def proxy():
    made = []

    def start(**options):
        made.append(Proxy(**options))
        return made[-1]

    yield start
    for each in made:
        each.close()
