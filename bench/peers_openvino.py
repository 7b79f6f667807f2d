"""The OpenVINO side of `make bench-peers`: a BERT's graph from its safetensors, and a process that runs it.

    peers_openvino.py run MODEL_DIR bf16|f32   the dialogue of engine/examples/peer.rs, with OpenVINO

The graph has plain operators of OpenVINO's own set. OpenVINO fuses them: biases and GELU into the products, and the
attention of a layer into one kernel. Its own operator for attention becomes the same kernel. One product for Q, K and V
was not faster. A graph of fixed shapes was at most a sixth faster at 12 tokens; real texts do not have fixed shapes.

The first line of the dialogue has the precision that the compiled model reports. Needs numpy and openvino.
"""

import json
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import peers_dialogue

# With this package, importing openvino sends usage data to its maker and writes ~/intel. OpenVINO works without it.
sys.modules["openvino_telemetry"] = None


# --- building the graph ---


class Graph:
    """Nodes of one model, in the terms of its config.json and its tensors' names."""

    def __init__(self, weights: dict, config: dict):
        from openvino import opset13
        self.ops, self.weights, self.config = opset13, weights, config

    def numbers(self, *values: int):
        return self.ops.constant(np.array(values, np.int64))

    def constant(self, values):
        return self.ops.constant(np.ascontiguousarray(values, np.float32))

    def weight(self, name: str):
        return self.constant(self.weights[name])

    def linear(self, x, name: str):
        product = self.ops.matmul(x, self.weight(f"{name}.weight"), transpose_a=False, transpose_b=True)
        return self.ops.add(product, self.weight(f"{name}.bias"))

    def norm(self, x, name: str):
        epsilon = self.config.get("layer_norm_eps", 1e-12)
        normed = self.ops.mvn(x, self.numbers(-1), True, epsilon, "inside_sqrt")
        return self.ops.add(self.ops.multiply(normed, self.weight(f"{name}.weight")), self.weight(f"{name}.bias"))

    def embeddings(self, ids):
        tensors = {name: self.weights[f"embeddings.{name}_embeddings.weight"]
                   for name in ("word", "position", "token_type")}
        words = self.ops.gather(self.constant(tensors["word"]), ids, self.numbers(0))
        # All tokens are of type 0: its row is added to each position's.
        positions = self.constant(tensors["position"] + tensors["token_type"][0])
        length = self.ops.gather(self.ops.shape_of(ids), self.numbers(1), self.numbers(0))
        positions = self.ops.slice(positions, self.numbers(0), length, self.numbers(1), self.numbers(0))
        return self.norm(self.ops.add(words, positions), "embeddings.LayerNorm")

    def attention(self, x, name: str, padding):
        heads = self.config["num_attention_heads"]
        size = self.config["hidden_size"] // heads

        def by_head(part: str, *order: int):
            split = self.ops.reshape(self.linear(x, f"{name}.{part}"), self.numbers(0, 0, heads, size), True)
            return self.ops.transpose(split, self.numbers(*order))

        query, key, value = by_head("query", 0, 2, 1, 3), by_head("key", 0, 2, 3, 1), by_head("value", 0, 2, 1, 3)
        scores = self.ops.multiply(self.ops.matmul(query, key, False, False), self.constant(1 / math.sqrt(size)))
        context = self.ops.matmul(self.ops.softmax(self.ops.add(scores, padding), -1), value, False, False)
        return self.ops.reshape(self.ops.transpose(context, self.numbers(0, 2, 1, 3)),
                                self.numbers(0, 0, heads * size), True)

    def layer(self, x, name: str, padding):
        def add_and_norm(part: str, inner, residual):
            return self.norm(self.ops.add(self.linear(inner, f"{part}.dense"), residual), f"{part}.LayerNorm")

        attended = add_and_norm(f"{name}.attention.output", self.attention(x, f"{name}.attention.self", padding), x)
        inner = self.ops.gelu(self.linear(attended, f"{name}.intermediate.dense"), "erf")
        return add_and_norm(f"{name}.output", inner, attended)


def bert(weights: dict, config: dict):
    """ids and mask, int32 [b, s] -> vectors [b, 384]."""
    import openvino
    graph = Graph(weights, config)
    ops = graph.ops
    ids, mask = (ops.parameter([-1, -1], np.int32, name=name) for name in ("ids", "mask"))
    real = ops.convert(mask, "f32")
    padded = ops.subtract(graph.constant(1), ops.unsqueeze(real, graph.numbers(1, 2)))
    padding = ops.multiply(padded, graph.constant(-1e9))
    state = graph.embeddings(ids)
    for number in range(config["num_hidden_layers"]):
        state = graph.layer(state, f"encoder.layer.{number}", padding)
    kept = ops.multiply(state, ops.unsqueeze(real, graph.numbers(2)))
    # The mean's divisor cancels in the norm.
    vectors = ops.normalize_l2(ops.reduce_sum(kept, graph.numbers(1)), graph.numbers(1), 1e-12, "max")
    for parameter, name in ((ids, "ids"), (mask, "mask")):
        parameter.output(0).set_names({name})
    return openvino.Model([vectors], [ids, mask], "bert")


# --- running it ---


class Runner(peers_dialogue.Runner):
    def __init__(self, directory: Path, precision: str):
        super().__init__()
        import openvino
        self._core, self._requests, self._shapes = openvino.Core(), {}, set()
        # Where the CPU has no bf16, OpenVINO can imitate it, which is slower than f32.
        can_bf16 = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._precision = "bf16" if precision == "bf16" and can_bf16 else "f32"
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        self._model = bert(peers_dialogue.safetensors(directory / "model.safetensors"), config)
        compiled = self.request(1).get_compiled_model()
        # Kernels are chosen when a shape is known.
        self.embed({name: np.ones((1, 8), np.int32) for name in ("ids", "mask")}, 1)
        self.about = {"kernels": self._kernels(compiled), "version": openvino.__version__.split("-")[0],
                      "precision": compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()}

    def _kernels(self, compiled) -> str:
        """What runs most of the products."""
        nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
        kernels = [node["primitiveType"].astype(str) for node in nodes
                   if node["layerType"].astype(str) in ("FullyConnected", "MatMul")]
        return Counter(kernels).most_common(1)[0][0]

    def request(self, threads: int):
        """One per number of threads, kept."""
        if threads not in self._requests:
            options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                       "INFERENCE_PRECISION_HINT": self._precision}
            self._requests[threads] = self._core.compile_model(self._model, "CPU", options).create_infer_request()
        return self._requests[threads]

    def prepare(self, inputs: list, threads: int) -> None:
        # Kernels are compiled for every new shape.
        for one in inputs:
            shape = (threads, *one["ids"].shape)
            if shape not in self._shapes:
                self._shapes.add(shape)
                self.embed(one, threads)

    def embed(self, inputs: dict, threads: int):
        return self.request(threads).infer(inputs)[0]


def main(arguments) -> int:
    if arguments[:1] != ["run"] or len(arguments) != 3 or arguments[2] not in ("bf16", "f32"):
        print("usage: peers_openvino.py run MODEL_DIR bf16|f32", file=sys.stderr)
        return 2
    Runner(Path(arguments[1]), arguments[2]).converse()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
