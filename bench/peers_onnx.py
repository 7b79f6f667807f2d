"""The ONNX Runtime side of `make bench-peers`: a BERT's graph from its safetensors, fp32 and dynamic int8, and a process
that runs it.

    peers_onnx.py build MODEL_DIR GRAPHS   GRAPHS/fp32.onnx and GRAPHS/int8.onnx
    peers_onnx.py run GRAPH                the dialogue of engine/examples/peer.rs, with ONNX Runtime

The graph is what ONNX Runtime's own optimizer for transformers makes of an exported BERT: its fused operators
EmbedLayerNormalization, Attention (Q, K and V in one product), BiasGelu and SkipLayerNormalization (bias and residual
included), then masked mean and L2 norm. Sessions optimize it further at the highest level. Needs numpy, onnx and
onnxruntime; everything else is from the standard library.
"""

import json
import sys
from pathlib import Path

import numpy as np

import peers_dialogue

FUSED = "com.microsoft"


# --- building the graph ---


class Graph:
    """Nodes and constants, added in the order in which they run."""

    def __init__(self, weights: dict):
        from onnx import helper, numpy_helper
        self._helper, self._numpy = helper, numpy_helper
        self.weights, self.nodes, self.constants = weights, [], []

    def constant(self, name: str, values) -> str:
        self.constants.append(self._numpy.from_array(np.ascontiguousarray(values), name))
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def transposed(self, name: str) -> str:
        """A linear layer's weight in the form of MatMul: [in, out]."""
        return self.constant(name, self.weights[name].T)

    def node(self, op: str, inputs, output: str, domain: str = "", **attributes) -> str:
        self.nodes.append(self._helper.make_node(op, inputs, [output], name=output, domain=domain, **attributes))
        return output


def bert(weights: dict, config: dict):
    """ids and mask, int32 [b, s] -> vectors [b, 384]."""
    from onnx import TensorProto, helper
    graph = Graph(weights)
    epsilon = config.get("layer_norm_eps", 1e-12)
    names = ["word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight",
             "LayerNorm.weight", "LayerNorm.bias"]
    graph.nodes.append(helper.make_node(
        "EmbedLayerNormalization", ["ids", "", *(graph.weight(f"embeddings.{name}") for name in names[:2]), "",
                                    *(graph.weight(f"embeddings.{name}") for name in names[3:])],
        ["embedded", "unused"], name="embed", domain=FUSED, epsilon=epsilon))
    # All tokens have type 0, so its row is added to each position's row.
    types = weights["embeddings.token_type_embeddings.weight"][0]
    positions = weights["embeddings.position_embeddings.weight"] + types
    graph.constants[1].CopyFrom(graph._numpy.from_array(positions, "embeddings.position_embeddings.weight"))
    state = "embedded"
    for number in range(config["num_hidden_layers"]):
        state = layer(graph, f"encoder.layer.{number}", state, config, epsilon)
    graph.node("Cast", ["mask"], "real", to=TensorProto.FLOAT)
    graph.node("Unsqueeze", ["real", graph.constant("last_axis", np.array([2]))], "weighting")
    graph.node("Mul", [state, "weighting"], "kept")
    # The norm cancels the divisor of the mean, so the mean is a sum here.
    graph.node("ReduceSum", ["kept", graph.constant("sequence_axis", np.array([1]))], "sum", keepdims=0)
    graph.node("LpNormalization", ["sum"], "vectors", axis=-1, p=2)
    shape = ["b", "s"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, shape) for name in ("ids", "mask")]
    outputs = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["b", config["hidden_size"]])]
    made = helper.make_graph(graph.nodes, "bert", inputs, outputs, graph.constants)
    return helper.make_model(made, ir_version=9,
                             opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)])


def layer(graph: Graph, name: str, state: str, config: dict, epsilon: float) -> str:
    parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
    qkv = graph.constant(f"{name}.qkv.weight", np.hstack([graph.weights[f"{part}.weight"].T for part in parts]))
    bias = graph.constant(f"{name}.qkv.bias", np.hstack([graph.weights[f"{part}.bias"] for part in parts]))
    context = graph.node("Attention", [state, qkv, bias, "mask"], f"{name}.context", FUSED,
                         num_heads=config["num_attention_heads"])

    def add_and_norm(part: str, x: str, residual: str) -> str:
        product = graph.node("MatMul", [x, graph.transposed(f"{part}.dense.weight")], f"{part}.product")
        inputs = [product, residual, *(graph.weight(f"{part}.{w}") for w in
                                       ("LayerNorm.weight", "LayerNorm.bias", "dense.bias"))]
        return graph.node("SkipLayerNormalization", inputs, f"{part}.normed", FUSED, epsilon=epsilon)

    attended = add_and_norm(f"{name}.attention.output", context, state)
    up = f"{name}.intermediate"
    inner = graph.node("MatMul", [attended, graph.transposed(f"{up}.dense.weight")], f"{up}.product")
    inner = graph.node("BiasGelu", [inner, graph.weight(f"{up}.dense.bias")], f"{up}.gelu", FUSED)
    return add_and_norm(f"{name}.output", inner, attended)


def build(model_dir: Path, graphs: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    graphs.mkdir(parents=True, exist_ok=True)
    fp32 = graphs / "fp32.onnx"
    onnx.save(bert(peers_dialogue.safetensors(model_dir / "model.safetensors"), config), str(fp32))
    # A scale per output channel: Q, K and V share a tensor. Types behind ONNX Runtime's own operators are unknown to
    # onnx, so the one there is needs to be said.
    quantize_dynamic(str(fp32), str(graphs / "int8.onnx"), weight_type=QuantType.QInt8, per_channel=True,
                     op_types_to_quantize=["MatMul", "Attention"],
                     extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})


# --- running it ---


class Runner(peers_dialogue.Runner):
    def __init__(self, graph: Path):
        super().__init__()
        import onnxruntime
        self._ort, self._graph = onnxruntime, graph
        onnxruntime.set_default_logger_severity(3)
        self._sessions = {}
        self.about = {"kernels": "CPUExecutionProvider", "version": onnxruntime.__version__}

    def session(self, threads: int):
        """The session for this number of threads; it is kept."""
        if threads not in self._sessions:
            options = self._ort.SessionOptions()
            options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_ENABLE_ALL
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            # Its threads spin while they wait for work. After a run they would slow down the next contender.
            options.add_session_config_entry("session.force_spinning_stop", "1")
            self._sessions[threads] = self._ort.InferenceSession(str(self._graph), options,
                                                                providers=["CPUExecutionProvider"])
        return self._sessions[threads]

    def prepare(self, inputs: list, threads: int) -> None:
        self.session(threads)

    def embed(self, inputs: dict, threads: int):
        return self.session(threads).run(None, inputs)[0]


def main(arguments) -> int:
    if arguments[:1] == ["build"] and len(arguments) == 3:
        build(Path(arguments[1]), Path(arguments[2]))
    elif arguments[:1] == ["run"] and len(arguments) == 2:
        Runner(Path(arguments[1])).converse()
    else:
        print("usage: peers_onnx.py build MODEL_DIR GRAPHS | run GRAPH", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
