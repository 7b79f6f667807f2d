"""What the Python peers of `make bench-peers` share: a model's tensors, and the dialogue of engine/examples/peer.rs."""

import json
import struct
import sys
import time
from pathlib import Path

import numpy as np


def safetensors(path: Path) -> dict:
    """Tensors by name, in f32, without a model's own prefix."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    kinds = {"F32": np.float32, "F16": np.float16}
    tensors = {}
    for name, about in header.items():
        if about.get("dtype") in kinds:
            start, end = (8 + size + offset for offset in about["data_offsets"])
            values = np.frombuffer(data[start:end], kinds[about["dtype"]]).reshape(about["shape"])
            tensors[name.removeprefix("bert.")] = values.astype(np.float32)
    return tensors


class Runner:
    """A model that embeds padded groups. A subclass sets `about` and has `prepare` and `embed`."""

    about: dict

    def __init__(self):
        self._texts = {}

    def prepare(self, inputs: list, threads: int) -> None:
        """Does what only the first run of these groups needs. It is not timed."""
        raise NotImplementedError

    def embed(self, inputs: dict, threads: int):
        """The vectors of one padded group, as an array."""
        raise NotImplementedError

    def groups(self, texts, size: int) -> list:
        """Padded inputs, `size` texts each, in the order given."""
        made = []
        for first in range(0, len(texts), size):
            group = texts[first:first + size]
            longest = max(len(ids) for ids in group)
            ids = np.zeros((len(group), longest), np.int32)
            mask = np.zeros_like(ids)
            for row, text in enumerate(group):
                ids[row, :len(text)], mask[row, :len(text)] = text, 1
            made.append({"ids": ids, "mask": mask})
        return made

    def answer(self, question: dict) -> dict:
        if "ids" in question:
            self._texts[question["ids"]] = question["texts"]
            return {}
        if "vectors" in question:
            inputs = self.groups(self._texts[question["vectors"]], 1)
            return {"vectors": [self.embed(one, 1)[0].tolist() for one in inputs]}
        # Neither sorting nor padding is what is measured.
        texts = sorted(self._texts[question["run"]], key=len)
        inputs = self.groups(texts, question["group"])
        threads, times = question["threads"], []
        self.prepare(inputs, threads)
        for _ in range(question["times"]):
            began = time.perf_counter()
            for one in inputs:
                self.embed(one, threads)
            times.append((time.perf_counter() - began) * 1e3)
        return {"ms": times}

    def converse(self) -> None:
        print(json.dumps(self.about), flush=True)
        for line in sys.stdin:
            print(json.dumps(self.answer(json.loads(line))), flush=True)
