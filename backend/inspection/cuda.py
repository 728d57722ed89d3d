"""A network on an NVIDIA GPU through PyTorch, for `runtimes`: the ONNX graph node by node, recorded once as a CUDA graph, then replayed.

Half precision and channels-last where pictures are convolved; float32 from where a tensor stops being a picture, since 640 has no quarter
pixel in half precision. What follows from shapes alone is computed once, on the host. The pictures' bytes are turned and scaled on the
GPU; two batches are on their way at once. A graph with an operation that is not in `OPERATIONS` is refused; another runtime does the work.
Not measured on a GPU yet; on a processor, where a test runs it in float32, it answers as ONNX Runtime does.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F

from backend.errors import InputError

SLOTS = 2                                        # batches on their way
_PIXELS = 32 * 640 * 640                         # of one batch


class Graph:
    """An ONNX graph as PyTorch calls. `run` takes float (B, 3, S, S) on the device and gives its one output in float32."""

    def __init__(self, model: bytes, name: str, device: str, half: bool) -> None:
        self.device, self.dtype = torch.device(device), torch.float16 if half else torch.float32
        graph = onnx.load_from_string(model).graph
        unknown = sorted({n.op_type for n in graph.node} - OPERATIONS.keys())
        if unknown or len(graph.input) != 1 or len(graph.output) != 1:
            why = ", ".join(unknown) or "it has several inputs or outputs"
            raise InputError(f"The model {name!r} cannot be computed by PyTorch: {why}.")
        self.nodes = [(n.op_type, list(n.input), list(n.output), _attributes(n)) for n in graph.node]
        self.input, self.output = graph.input[0].name, graph.output[0].name
        self.known: dict[str, Tensor] = {i.name: torch.from_numpy(np.array(numpy_helper.to_array(i))) for i in graph.initializer}
        self._moved: dict[tuple[str, torch.dtype], Tensor] = {}
        uses = {name: k for k, (_, inputs, _, _) in enumerate(self.nodes) for name in inputs}
        self._last: list[list[str]] = [[i for i in set(inputs) if uses[i] == k] for k, (_, inputs, _, _) in enumerate(self.nodes)]

    def run(self, images: Tensor) -> Tensor:
        found: dict[str, Tensor] = {self.input: images}
        for (kind, inputs, outputs, attributes), done in zip(self.nodes, self._last, strict=True):
            if not all(o in self.known for o in outputs):
                on_host = kind in ("Shape", "Constant") or all(i in self.known for i in inputs if i)
                as_it_is = on_host or kind in FROM_HOST
                given = [self.known[i] if as_it_is and i in self.known else self._on_device(i, found) for i in inputs if i]
                told = OPERATIONS[kind](given, attributes)
                several: Sequence[Tensor] = told if isinstance(told, (tuple, list)) else [told]
                for name, value in zip(outputs, several, strict=True):
                    (self.known if on_host else found)[name] = value
            for name in done:
                found.pop(name, None)
        return found[self.output].float()

    def _on_device(self, name: str, found: dict[str, Tensor]) -> Tensor:
        """A tensor of this pass, or a known one in the precision of the pass."""
        if name in found:
            return found[name]
        known = self.known[name]
        like = next((t.dtype for t in found.values() if t.is_floating_point()), self.dtype)
        dtype = self.dtype if known.dim() == 4 else like if known.is_floating_point() else known.dtype
        if (name, dtype) not in self._moved:                     # once, before the graph is recorded
            moved = known.to(self.device, dtype)
            self._moved[name, dtype] = moved.contiguous(memory_format=torch.channels_last) if moved.dim() == 4 else moved
        return self._moved[name, dtype]


def _attributes(node: Any) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


Given = Sequence[Tensor]


def _conv(given: Given, a: dict[str, Any]) -> Any:
    x, weight, *bias = (given[0], *(g.to(given[0].dtype) for g in given[1:]))
    top, left, bottom, right = a.get("pads") or (0, 0, 0, 0)
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    return F.conv2d(x, weight, bias[0] if bias else None, a.get("strides") or 1, (top, left), a.get("dilations") or 1, a.get("group", 1))


def _max_pool(given: Given, a: dict[str, Any]) -> Any:
    return F.max_pool2d(given[0], a["kernel_shape"], a.get("strides"), (a.get("pads") or (0, 0))[:2], ceil_mode=bool(a.get("ceil_mode")))


def _resize(given: Given, a: dict[str, Any]) -> Any:
    if a.get("mode") != b"nearest" or len(given) < 2:
        raise InputError("The model enlarges in a way that PyTorch does not compute here.")
    return F.interpolate(given[0], scale_factor=[float(s) for s in given[-1][2:]], mode="nearest")


def _reshape(given: Given, a: dict[str, Any]) -> Any:
    x, shape = given[0], [given[0].shape[k] if s == 0 else s for k, s in enumerate(given[1].tolist())]
    return x.reshape(shape).float() if len(shape) <= 3 and x.is_floating_point() else x.reshape(shape)


def _slice(given: Given, a: dict[str, Any]) -> Any:
    x, starts, ends = given[0], given[1].tolist(), given[2].tolist()
    axes = given[3].tolist() if len(given) > 3 else range(len(starts))
    steps = given[4].tolist() if len(given) > 4 else [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        at = [slice(None)] * x.dim()
        at[axis] = slice(start, end, step)
        x = x[tuple(at)]
    return x


def _split(given: Given, a: dict[str, Any]) -> Any:
    return given[0].split(given[1].tolist(), a.get("axis", 0))


def _unsqueeze(given: Given, a: dict[str, Any]) -> Any:
    x = given[0]
    for axis in sorted(given[1].tolist()):
        x = x.unsqueeze(axis)
    return x


def _gather(given: Given, a: dict[str, Any]) -> Any:
    (x, at), axis = given, a.get("axis", 0)
    return x.index_select(axis, at.reshape(-1).to(x.device)).reshape((*x.shape[:axis], *at.shape, *x.shape[axis + 1:]))


def _constant(given: Given, a: dict[str, Any]) -> Any:
    return torch.from_numpy(np.array(numpy_helper.to_array(a["value"])))


def _concat(given: Given, a: dict[str, Any]) -> Any:
    widest = max((g.dtype for g in given), key=lambda d: torch.finfo(d).bits if d.is_floating_point else 0)
    return torch.cat([g.to(widest) for g in given], a["axis"])


def _div(given: Given, a: dict[str, Any]) -> Any:
    return given[0] / given[1] if given[0].is_floating_point() else torch.div(given[0], given[1], rounding_mode="trunc")


FROM_HOST = {"Reshape", "Slice", "Split", "Unsqueeze", "Resize", "Expand", "Gather"}      # their further inputs are numbers, not pictures
OPERATIONS: dict[str, Callable[[Given, dict[str, Any]], Any]] = {
    "Conv": _conv, "MaxPool": _max_pool, "Resize": _resize, "Reshape": _reshape, "Slice": _slice, "Split": _split, "Unsqueeze": _unsqueeze,
    "Gather": _gather, "Constant": _constant, "Concat": _concat, "Div": _div,
    "Sigmoid": lambda g, a: g[0].sigmoid(), "Relu": lambda g, a: g[0].relu(), "Softmax": lambda g, a: g[0].softmax(a.get("axis", -1)),
    "Mul": lambda g, a: g[0] * g[1], "Add": lambda g, a: g[0] + g[1], "Sub": lambda g, a: g[0] - g[1],
    "MatMul": lambda g, a: g[0] @ g[1], "Transpose": lambda g, a: g[0].permute(a["perm"]),
    "Shape": lambda g, a: torch.tensor(g[0].shape), "Range": lambda g, a: torch.arange(*(v.item() for v in g), dtype=g[0].dtype),
    "ConstantOfShape": lambda g, a: torch.full(g[0].tolist(), numpy_helper.to_array(a["value"]).item()),
    "Expand": lambda g, a: g[0].expand(torch.broadcast_shapes(g[0].shape, g[1].tolist())),
    "Cast": lambda g, a: g[0].to({1: torch.float32, 6: torch.int32, 7: torch.int64, 10: torch.float16}[a["to"]]),
    "Identity": lambda g, a: g[0], "GlobalAveragePool": lambda g, a: g[0].mean((2, 3), keepdim=True),
    "Flatten": lambda g, a: g[0].flatten(a.get("axis", 1)),
    "Gemm": lambda g, a: F.linear(g[0], g[1] if a.get("transB") else g[1].T, g[2] if len(g) > 2 else None),
}


class Slot:
    """A batch's place on the GPU: its bytes, the recorded pass, its answer on the way back."""

    def __init__(self, graph: Graph, batch: int, imgsz: int) -> None:
        self.stream, self.count = torch.cuda.Stream(), 0
        self.host = torch.zeros((batch, imgsz, imgsz, 3), dtype=torch.uint8).pin_memory()
        self.pixels = torch.zeros_like(self.host, device="cuda")
        with torch.cuda.stream(self.stream), torch.inference_mode():
            for _ in range(3):                               # constants are moved and kernels chosen before anything is recorded
                found = graph.run(self._images(graph.dtype))
            self.stream.synchronize()
            self.recorded = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.recorded, stream=self.stream):
                self.found = graph.run(self._images(graph.dtype))
        self.answer = torch.empty(found.shape, dtype=torch.float32).pin_memory()

    def _images(self, dtype: torch.dtype) -> Tensor:
        return self.pixels.permute(0, 3, 1, 2).to(dtype) / 255       # a permuted (B, S, S, 3) is channels-last already

    def start(self, batch: np.ndarray | Sequence[np.ndarray]) -> None:
        for place, picture in zip(self.host.numpy(), batch, strict=False):
            place[...] = picture
        self.count = len(batch)
        with torch.cuda.stream(self.stream):
            self.pixels.copy_(self.host, non_blocking=True)
            self.recorded.replay()
            self.answer.copy_(self.found, non_blocking=True)

    def finished(self) -> np.ndarray:
        self.stream.synchronize()
        return np.array(self.answer[:self.count].numpy())


class Cuda:
    """A `runtimes.Network`."""

    def __init__(self, model: bytes, name: str, imgsz: int, half: bool) -> None:
        if not torch.cuda.is_available():
            raise InputError("PyTorch sees no GPU here.")
        torch.backends.cudnn.benchmark = True
        graph = Graph(model, name, "cuda", half)
        self.batch, self.notes = max(1, min(64, _PIXELS // imgsz**2)), list[str]()
        self.name = f"cuda-{'f16' if half else 'f32'} torch {torch.__version__.split('+')[0]}"
        self._slots = [Slot(graph, self.batch, imgsz) for _ in range(SLOTS)]

    def stream(self, batches: Iterable[np.ndarray | Sequence[np.ndarray]]) -> Iterator[np.ndarray]:
        free, busy = deque(self._slots), deque[Slot]()
        for batch in batches:
            if not free:
                free.append(busy.popleft())
                yield free[-1].finished()
            slot = free.popleft()
            slot.start(batch)
            busy.append(slot)
        while busy:
            yield busy.popleft().finished()
