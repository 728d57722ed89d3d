"""A network's int8 form: its convolutions in bytes, by ONNX Runtime's static quantization, for processors without bf16.

Weights are scaled channel by channel, what flows between layers by the least and largest values that some pictures made there. Layers that
only the answer follows (class scores, box edges, which a byte would round to steps one can see) stay as they are: on the demo model that
is the difference between 1.3 and 0.0 points of map50. Whether what comes out may be used is measured elsewhere (`evaluation.precision`).
Knows nothing of labels, of bundles, or of where pictures come from.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import ModelProto, NodeProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from backend.errors import InputError
from backend.inspection.runtimes import as_floats

PICTURES = 64                            # to scale by
ACTIVE = {"Relu", "LeakyRelu", "PRelu", "Clip", "HardSwish", "HardSigmoid", "Elu", "Gelu", "Mish", "Softplus"}


class _Shown(CalibrationDataReader):
    """Pictures one by one, as the network takes them."""

    def __init__(self, name: str, pictures: Iterable[np.ndarray]) -> None:
        self._name, self._left = name, iter(pictures)

    def get_next(self) -> dict[str, np.ndarray] | None:
        picture = next(self._left, None)
        return None if picture is None else {self._name: as_floats(picture[None])}


def made(network: bytes, name: str, pictures: Iterable[np.ndarray]) -> bytes:
    """The int8 form, as the bytes of an ONNX file. `pictures`: uint8 (S, S, 3), RGB, fitted to the network, like those it will see.

    Raises InputError where there is nothing to gain, or where ONNX Runtime cannot make one.
    """
    model = onnx.load_model_from_string(network)
    if not (convolutions := [node for node in _named(model) if node.op_type == "Conv"]):
        raise InputError(f"The model {name!r} has no convolutions, so int8 would gain nothing.")
    last = set(_last(model))
    if all(node.name in last for node in convolutions):
        raise InputError(f"The model {name!r} has nothing but its last layers, so int8 would gain nothing.")
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})      # or it says that one could tidy the graph
    with TemporaryDirectory(prefix="int8-") as folder:
        try:
            quantize_static(model, str(Path(folder) / "int8.onnx"), _Shown(model.graph.input[0].name, pictures), QuantFormat.QDQ, ["Conv"],
                            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=sorted(last),
                            calibrate_method=CalibrationMethod.MinMax, extra_options={"QuantizeBias": False})
        except Exception as error:                                         # it raises what it likes on graphs that it was not made for
            said = str(error).strip().split("\n")[0][:200] or type(error).__name__
            raise InputError(f"The model {name!r} could not be brought into int8: {said}.") from error
        return (Path(folder) / "int8.onnx").read_bytes()


def _named(model: ModelProto) -> list[NodeProto]:
    """All nodes; those without a name get one, as exclusions go by name."""
    for k, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type} {k}"
    return list(model.graph.node)


def _last(model: ModelProto) -> Iterator[str]:
    """Names of the convolutions after which no activation comes: what follows them is the answer."""
    makers = {out: node for node in model.graph.node for out in node.output}
    waiting, seen = [out.name for out in model.graph.output], set[str]()
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in seen or _activates(node, makers):
            continue
        seen.add(node.name)
        if node.op_type == "Conv":
            yield node.name
        waiting += node.input


def _activates(node: NodeProto, makers: dict[str, NodeProto]) -> bool:
    """Whether this is an activation: one of a single node, or x · sigmoid(x), as YOLO and EfficientNet have it."""
    if node.op_type in ACTIVE:
        return True
    if node.op_type != "Mul" or len(node.input) != 2:
        return False
    return any((gate := makers.get(a)) is not None and gate.op_type == "Sigmoid" and gate.input[0] == b
               for a, b in (node.input, reversed(node.input)))
