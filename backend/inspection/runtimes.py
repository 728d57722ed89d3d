"""What computes a network: OpenVINO on a processor, PyTorch on a GPU (`cuda`), ONNX Runtime anywhere, each behind one call.

A runtime opens the bytes of an ONNX file and answers batches of pictures as they are, uint8 (B, S, S, 3) RGB, with the network's
raw output, float32 (B, …). `stream` takes many batches and keeps as many on their way as the machine has streams, so that whoever
feeds it and whoever reads it work meanwhile. Which one is taken follows from the machine; a person can force one (`DIFFSPECT_RUNTIME`,
or the setting of a run); one that fails is passed over, and says so. A further runtime is one more entry in `RUNTIMES`
and a name in `config`.
Knows nothing of bundles, of boxes or of what a picture shows.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from backend.config import RUNTIMES as NAMES
from backend.device import arithmetics, cores, openvino_core
from backend.errors import ConfigError, DiffspectError, InputError, ResourceError

NVIDIA = Path("/proc/driver/nvidia/version")     # there where a GPU's driver is
Pixels = np.ndarray | Sequence[np.ndarray]       # uint8 (B, S, S, 3), or B pictures of (S, S, 3)
Answer = Callable[[np.ndarray], np.ndarray]      # float32 (B, 3, S, S) from 0 to 1 -> raw output
WRONG_INPUT = "The model {!r} cannot be used here: it must take one float32 batch of images of any length."
_INSIDE = re.compile(r"/\S+\.(cc|cpp|h):\d+[^\n]*|\[\w*Error\]")      # of a runtime: its files, and its kinds of error
IN_FLIGHT = 2                                    # times as many requests as OpenVINO asks for: while one waits to be read and filled
                                                 # anew, its stream has the next. Files to rows 1.1 times as fast at 224 px, 1.15 at 640
_BATCH_PIXELS = 4 * 224 * 224                    # of one OpenVINO request: more gains nothing (5.9 against 6.2 ms of a core at 8, 224 px)


@dataclass(frozen=True)
class Leave:
    """Which arithmetic OpenVINO may take by itself, for somebody has measured that it changes nothing (`precision`)."""

    bf16: bool = False
    int8: bool = False
    int8_form: bytes = b""                       # the network for int8, where there is one, as the bytes of an ONNX file


EXACT = Leave()


class Network(Protocol):
    """An opened network. Not for two threads at once."""

    name: str                                    # runtime, arithmetic and version, as each inspection records it
    notes: list[str]                             # what a person should know: a runtime that was passed over
    batch: int                                   # pictures of one call

    def stream(self, batches: Iterable[Pixels]) -> Iterator[np.ndarray]:
        """Each of at most `batch` pictures -> raw output (B, …) each, in order."""


class InMemory:
    """A network that lies in memory, or any function in its place: one call after the other."""

    def __init__(self, answer: Answer, name: str = "memory", batch: int = 32) -> None:
        self.answer, self.name, self.batch, self.notes = answer, name, batch, list[str]()

    def stream(self, batches: Iterable[Pixels]) -> Iterator[np.ndarray]:
        return map(self.answer, map(as_floats, batches))


def as_floats(pixels: Pixels) -> np.ndarray:
    """-> float32 (B, 3, S, S) from 0 to 1."""
    return np.ascontiguousarray(np.asarray(pixels).transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def open_network(onnx: bytes, runtime: str, name: str, imgsz: int, exact: bool = False, leave: Leave = EXACT) -> Network:
    """The network `name` in a runtime: one of `RUNTIMES`, `openvino`, or `auto`, where `exact` asks for float32.

    `openvino` takes the fastest arithmetic that it has leave to; a person who names bf16 or int8 gets it anyway.
    Raises ConfigError, InputError, ResourceError.
    """
    usual = os.environ.get("DIFFSPECT_RUNTIME") or "auto"
    asked = runtime if runtime != "auto" else exactly(usual) if exact else usual
    if asked not in NAMES:
        raise ConfigError(f"{'runtime' if runtime != 'auto' else 'DIFFSPECT_RUNTIME'} must be one of {', '.join(NAMES)}, not {asked}.")
    if asked != "auto":
        return _opened(asked, onnx, name, imgsz, leave)
    passed = []
    for candidate in fitting(exact):
        try:
            network = _opened(candidate, onnx, name, imgsz, leave)
        except Exception as error:               # whatever it meets in a graph it was not made for: a KeyError among them
            if candidate == LAST:
                raise
            passed.append(f"The runtime {candidate} could not be used: {_line(error)}")
            continue
        network.notes += [f"{said} {candidate} does the work, more slowly." for said in passed]
        return network
    raise AssertionError("the last runtime is always there")


def _opened(runtime: str, onnx: bytes, name: str, imgsz: int, leave: Leave) -> Network:
    if runtime == "openvino":                    # the fastest arithmetic of this processor that it may take
        runtime = next((f"openvino-{a}" for a in faster() if getattr(leave, a)), "openvino-f32")
    if runtime == INT8 and not leave.int8_form:
        raise ConfigError(f"The model {name!r} has no int8 form yet. Make it with: python -m backend measure-precision --model "
                          f"{name!r} --arithmetic int8")
    return RUNTIMES[runtime](leave.int8_form if runtime == INT8 else onnx, name, imgsz)


def exactly(runtime: str) -> str:
    """The same place to compute in, in float32: for a model whose scores are small differences of large values."""
    return {"openvino": "openvino-f32", "openvino-bf16": "openvino-f32", INT8: "openvino-f32", "cuda": "cuda-f32"}.get(runtime, runtime)


def fitting(exact: bool) -> list[str]:
    """Runtimes for this machine, the fastest first."""
    gpu = ["cuda-f32" if exact else "cuda"] if NVIDIA.exists() and find_spec("torch") else []      # torch takes seconds to load
    gpu += ["onnxruntime-cuda"] if "CUDAExecutionProvider" in ort.get_available_providers() else []
    processor = ["openvino-f32" if exact else "openvino"] if find_spec("openvino") else []
    return [*gpu, *processor, LAST]


def _line(error: BaseException) -> str:
    """The first line of what went wrong, as a sentence; of a mistake of the program its kind too, since "'axis'" alone says nothing."""
    words = str(error).strip().split("\n")[0][:200].rstrip(". ")
    told = isinstance(error, (DiffspectError, RuntimeError, ImportError, OSError)) and words
    return (words if told else f"{type(error).__name__} {words}".strip()) + "."


# ── ONNX Runtime ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _onnxruntime(providers: list[str]) -> Callable[[bytes, str, int], Network]:
    """A runtime of ONNX Runtime. Where a GPU provider cannot start, ONNX Runtime takes the CPU: the name says what it really took."""

    def start(onnx: bytes, name: str, imgsz: int) -> Network:
        session = _session(onnx, [p for p in providers if p in ort.get_available_providers()], name)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or isinstance(inputs[0].shape[0], int) or inputs[0].type != "tensor(float)":
            raise InputError(WRONG_INPUT.format(name))
        device = session.get_providers()[0].removesuffix("ExecutionProvider").lower()

        def answer(batch: np.ndarray) -> np.ndarray:
            try:
                return np.asarray(session.run([outputs[0].name], {inputs[0].name: batch})[0])
            except MemoryError as e:
                raise ResourceError(f"Out of memory while the model {name!r} looked at {len(batch)} images.") from e
            except Exception as e:                                                 # ONNX Runtime's own errors share no base class
                raise _explained(e, f"The model {name!r} failed on {len(batch)} images of {batch.shape[-1]} pixels") from e

        # 16 images of 640 px a call: activations of a YOLO11n stay below about 1 GB
        return InMemory(answer, f"onnxruntime-{device} {ort.__version__}", max(1, min(32, 16 * 640 * 640 // imgsz**2)))

    return start


def _session(onnx: bytes, providers: list[str], name: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = cores()                                         # by itself it ignores the limits of a container
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")       # 45 against 39 images/s while others use the cores too
    options.log_severity_level = 4                                                 # its errors are raised; printed too they only frighten
    try:
        return ort.InferenceSession(onnx, options, providers=providers)
    except Exception as e:
        raise _explained(e, f"The model {name!r} cannot be opened by ONNX Runtime {ort.__version__}") from e


def _explained(error: Exception, what: str) -> Exception:
    """A sentence for a person out of a runtime's words."""
    words = " ".join(_INSIDE.sub(" ", str(error)).split())
    if "opset" in str(error).lower() or "IR version" in str(error):
        return InputError(f"{what}: it was exported for a newer runtime. Export it with an older opset, or update ONNX Runtime.")
    if "allocate" in str(error).lower():
        return ResourceError(f"{what}: out of memory.")
    return InputError(f"{what}: {words.split(':', 3)[-1].strip()[:200] or 'it is no network that can be computed'}")


# ── OpenVINO ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class OpenVino:
    """Requests of a fixed size in flight, one or more for each stream of the processor; the pictures' bytes go in as they are.

    `precision`: f32, bf16, or int8 for a network in that form, of which the rest is float32.
    """

    def __init__(self, onnx: bytes, name: str, imgsz: int, precision: str) -> None:
        import openvino as ov

        self.batch, self.notes, self._what = max(1, _BATCH_PIXELS // imgsz**2), list[str](), f"The model {name!r}"
        try:
            compiled = openvino_core().compile_model(_taking_bytes(_read(onnx, name), self.batch, imgsz), "CPU", {
                "PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision.replace("int8", "f32"),
                "INFERENCE_NUM_THREADS": cores()})
            count = max(4, IN_FLIGHT * int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")))
            self._requests = [compiled.create_infer_request() for _ in range(count)]
            self._inputs = {id(r): r.get_input_tensor(0).data for r in self._requests}       # uint8 (B, S, S, 3), written in place
        except RuntimeError as error:
            raise InputError(f"{self._what} cannot be opened by OpenVINO: {_line(error)}") from error
        self.name = f"openvino-cpu-{precision} {ov.__version__.split('-')[0]}"

    def stream(self, batches: Iterable[Pixels]) -> Iterator[np.ndarray]:
        free, busy = deque(self._requests), deque[tuple[Any, int]]()
        try:
            for batch in batches:
                if not free:
                    yield self._finished(busy, free)
                assert len(batch) <= self.batch
                request = free.popleft()
                for place, picture in zip(self._inputs[id(request)], batch, strict=False):
                    place[...] = picture                                           # what is missing is what was there: thrown away after
                request.start_async()
                busy.append((request, len(batch)))
            while busy:
                yield self._finished(busy, free)
        finally:
            for request, _ in busy:                                                # left early: nothing may still read what is let go
                request.wait()

    def _finished(self, busy: "deque[tuple[Any, int]]", free: "deque[Any]") -> np.ndarray:
        request, count = busy.popleft()
        try:
            request.wait()
        except RuntimeError as error:
            raise _explained(error, f"{self._what} failed on {count} images") from error
        found = np.array(request.get_output_tensor(0).data[:count], np.float32)
        free.append(request)
        return found


def _read(onnx: bytes, name: str) -> Any:
    from openvino import Type

    network = openvino_core().read_model(onnx)
    taken = network.inputs
    if len(taken) != 1 or len(taken[0].partial_shape) != 4 or taken[0].partial_shape[0].is_static or taken[0].element_type != Type.f32:
        raise InputError(WRONG_INPUT.format(name))
    return network


def _taking_bytes(network: Any, batch: int, imgsz: int) -> Any:
    """The network with uint8 (B, S, S, 3) as its input: OpenVINO turns and scales it on the way in."""
    from openvino import Layout, Type
    from openvino.preprocess import PrePostProcessor

    network.reshape([batch, 3, imgsz, imgsz])
    steps = PrePostProcessor(network)
    steps.input().tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    steps.input().preprocess().convert_element_type(Type.f32).scale(255.0)
    steps.input().model().set_layout(Layout("NCHW"))
    return steps.build()


def has_bf16() -> bool:
    """Whether OpenVINO is here and the processor computes bf16 by itself."""
    return find_spec("openvino") is not None and "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def has_int8() -> bool:
    """Whether OpenVINO is here and the processor computes int8 by itself."""
    return find_spec("openvino") is not None and "int8" in arithmetics()


def faster() -> list[str]:
    """The arithmetics that OpenVINO has here beside float32, the fastest first. YOLO11n at 224 and 640 px: bf16 takes 0.45 of the time
    where it is in hardware, int8 0.55 there, and 0.6 on the same two cores told to leave AMX."""
    return [name for name, there in (("bf16", has_bf16), ("int8", has_int8)) if there()]


def _bf16(onnx: bytes, name: str, imgsz: int) -> Network:
    if not has_bf16():
        raise ConfigError("This processor does not compute bf16 by itself. Choose the runtime openvino-f32, or auto.")
    return OpenVino(onnx, name, imgsz, "bf16")


def _cuda(half: bool) -> Callable[[bytes, str, int], Network]:
    def start(onnx: bytes, name: str, imgsz: int) -> Network:
        from backend.inspection.cuda import Cuda

        return Cuda(onnx, name, imgsz, half)

    return start


LAST, INT8 = "onnxruntime-cpu", "openvino-int8"
RUNTIMES: dict[str, Callable[[bytes, str, int], Network]] = {
    "openvino-f32": lambda onnx, name, imgsz: OpenVino(onnx, name, imgsz, "f32"),
    "openvino-bf16": _bf16,
    INT8: lambda onnx, name, imgsz: OpenVino(onnx, name, imgsz, "int8"),
    "onnxruntime-cpu": _onnxruntime(["CPUExecutionProvider"]),
    "cuda": _cuda(half=True),
    "cuda-f32": _cuda(half=False),
    "onnxruntime-cuda": _onnxruntime(["CUDAExecutionProvider", "CPUExecutionProvider"]),
}
