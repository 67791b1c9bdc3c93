"""The parsers that are ours, each with inputs to begin with and what it may raise.

A target reads one mutated input. What `allowed` does not name is a finding, and so are a crash, a
hang and more memory than a gigabyte.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from litmus.artifacts import encode_tensors, parse_tensors, read_header
from litmus.detectors.candidates import Candidates
from litmus.errors import DetectorError, ModelError, UsageError, ZooError
from litmus.formats import SNIFF_BYTES, onnx_graph, sniff
from litmus.formats.onnx_external import load_external_data
from litmus.formats.onnx_input import ImageInput
from litmus.formats.onnx_last_layer import last_layer
from litmus.formats.preprocessing import KEYS, Preprocessing
from litmus.formats.stated_network import StatedNetwork
from litmus.formats.torch_archive import check_weights_only
from litmus.scanning import Failed, Scored, Skipped
from litmus.scanning.judge import Judge
from litmus.scanning.targets import Target, find_targets
from tests.formats.onnx_models import SPEC, classifier, detector, layer_detector
from tests.formats.torch_files import network, saved, scripted
from tests.fuzz.mutation import mutated_bytes, mutated_json, mutated_model

__all__ = ["TARGETS", "Fuzzed", "onnx_models"]

Read = Callable[[Random, Path], None]


@dataclass(frozen=True, kw_only=True)
class Fuzzed:
    """A target: `read` makes an input with a generator, in a folder of its own, and reads it.

    `prepare` makes what all inputs begin with, before any is timed. `in_child` says that a child
    process reads it under a limit of memory, so that wanting more is no finding.
    """

    read: Read
    allowed: tuple[type[Exception], ...]
    in_child: bool = False
    prepare: Callable[[], object] = tuple


@cache
def onnx_models() -> list[Any]:
    """Classifiers to begin with."""
    endings = ((), ("Softmax",), ("LogSoftmax:1",), ("Softmax", "Flatten"), ("Softmax", "Log"))
    return [
        *(classifier(ending=ending) for ending in endings),
        classifier(layout="nhwc", batch=3),
        classifier(sizes=[3, "h", "w"], output=["n", "k"], opset=9),
    ]


def _read_onnx(random: Random, folder: Path) -> None:
    """All that is ours before onnxruntime sees a model, and the search for its last layer."""
    model = mutated_model(random, random.choice(onnx_models()))
    data = model.SerializeToString()
    if random.random() < 0.4:
        data = mutated_bytes(random, data, [m.SerializeToString() for m in onnx_models()[:2]])
    path = folder / "m.onnx"
    graph = onnx_graph.parse(data, path)
    onnx_graph.check_operators(graph, path)
    load_external_data(graph, path, 10**6)
    source = onnx_graph.image_input(graph, path)
    ImageInput.of(source, Preprocessing(), SPEC, path)
    onnx_graph.keep_class_output(graph, SPEC.num_classes, path)
    onnx_graph.read_before_softmax(graph)
    last_layer(graph.graph, SPEC.num_classes, path)


_ARRAYS: Final[dict[str, NDArray[Any]]] = {"w": np.zeros((3, 4), np.float32), "b": np.arange(5)}
_HEADER: Final = {"format": "litmus-zoo-model", "spec": {"a": [1, 2]}, "class_names": ["a", "b"]}


@cache
def _tensor_files() -> list[bytes]:
    return [encode_tensors(_ARRAYS, _HEADER), encode_tensors({}, {}), save(_ARRAYS)]


def _read_tensors(random: Random, folder: Path) -> None:
    files = _tensor_files()
    data, kind = random.choice(files), random.random()
    if kind < 0.2:
        # With the right digest, so that what lies behind it is reached.
        with contextlib.suppress(ValueError):  # what JSON does not write, such as NaN
            data = encode_tensors(_ARRAYS, {"x": mutated_json(random, _HEADER)})
    elif kind < 0.6:
        length = int.from_bytes(data[:8], "little")
        changed = mutated_json(random, json.loads(data[8 : 8 + length]))
        header = json.dumps(changed).encode()
        data = len(header).to_bytes(8, "little") + header + data[8 + length :]
    else:
        data = mutated_bytes(random, data, files)
    path = folder / "x.safetensors"
    path.write_bytes(data)
    with contextlib.suppress(ZooError):
        read_header(path, ZooError)
    parse_tensors(data, path, ZooError)


_SIDECARS: Final = (
    b"scale = 255\nmean = [0.4914, 0.4822, 0.4465]\nstd = 0.25\nlayout = 'nhwc'\n",
    b'channels = "bgr"\noutputs = "logits"\nclasses = ["cat", "dog"]\n[x]\ny = 1979-05-27\n',
)


_VALUES: Final = (
    "1", "-1", "0", "nan", "inf", "1e308", "9" * 400, "0.5", "true", '""', '"rgb"', '"nhwc"',
    '"logits"', "[]", "[1, 2, 3]", '[1, "a"]', "[[1]]", '["a", "b"]', "1979-05-27", "{a = 1}",
    '"""\n"""', "[nan, 1, 1]", "0x10", "[0.1, 0.2, 0.3]", "",
)  # fmt: skip


def _sidecar(random: Random) -> bytes:
    """Keys that are known, with values that may be."""
    keys = [*KEYS, "x", "scale"]
    lines = [
        f"{random.choice(keys)} = {random.choice(_VALUES)}" for _ in range(random.randint(0, 3))
    ]
    return "\n".join(lines).encode()


def _read_sidecar(random: Random, folder: Path) -> None:
    data = _sidecar(random)
    if random.random() < 0.4:
        data = mutated_bytes(random, random.choice(_SIDECARS), _SIDECARS)
    (folder / "m.litmus.toml").write_bytes(data)
    stated = Preprocessing.for_model(folder / "m.onnx", {})
    images = np.zeros((1, 3, 2, 2), np.float32)
    with contextlib.suppress(ModelError):
        stated.check(3, "m.onnx")
        stated.class_names(2, "m.onnx")
        with np.errstate(all="ignore"):
            stated.apply(images)
        stated.notes(3)


@cache
def _torch_files() -> list[bytes]:
    state = network().state_dict()
    return [
        saved(state),
        saved({"state_dict": state, "epoch": 3}, pickle_protocol=4),
        saved(state, _use_new_zipfile_serialization=False),
        saved(network()),
        scripted(network()),
    ]


def _read_torch(random: Random, folder: Path) -> None:
    path = folder / "m.pt"
    path.write_bytes(mutated_bytes(random, random.choice(_torch_files()), _torch_files()[:2]))
    check_weights_only(path, SPEC)


def _read_first_bytes(random: Random, folder: Path) -> None:
    """What the scanner itself reads of a file, its name included."""
    files = [*_torch_files(), *_tensor_files(), classifier().SerializeToString()]
    data = mutated_bytes(random, random.choice(files), files)
    suffix = random.choice((".onnx", ".pt", ".pth", ".keras", ".h5", ".safetensors", "", ".txt"))
    path = folder / f"{random.choice(('m', 'a b', chr(27) + 'x', chr(10), '-rf'))}{suffix}"
    path.write_bytes(data)
    sniff(data[:SNIFF_BYTES])
    for target in find_targets([path, folder]):
        assert target.format or target.skipped or target.failed
    path.unlink()


@cache
def _detector_files() -> list[tuple[Mapping[str, Any], Mapping[str, Any], bytes]]:
    files = [detector().to_bytes(), layer_detector().to_bytes()]
    return [(*parse_tensors(data, "x", DetectorError), data) for data in files]


def _read_detector(random: Random, folder: Path) -> None:
    """A detector's file, then whatever the scanner asks a detector before it judges."""
    arrays, header, data = random.choice(_detector_files())
    if random.random() < 0.3:
        data = mutated_bytes(random, data)
    else:
        # With the right digest, so that what lies behind it is reached.
        own = {name: _other_array(random, array) for name, array in arrays.items()}
        changed = mutated_json(random, header) if random.random() < 0.8 else header
        with contextlib.suppress(ValueError, TypeError):  # what JSON does not write, such as NaN
            data = encode_tensors(own, changed)
    path = folder / "x.litmus"
    path.write_bytes(data)
    candidates = Candidates.of(path)
    (loaded,) = candidates.detectors.values()
    loaded.scope.get("dataset")
    reply = {**_SCORED, "detector": "x.litmus", "input_spec": loaded.input_spec.to_json()}
    answer = {"sha256": "0" * 64, "seconds": 0.1, "reply": json.dumps(reply)}
    with contextlib.suppress(UsageError):  # a rate that it can't promise
        Judge(candidates, 0.05).result(Target(path=folder / "m.onnx", format="onnx"), answer)


def _other_array(random: Random, array: Any) -> Any:
    if random.random() > 0.15:
        return array
    return random.choice(
        (array[:1], array[..., :1], array.astype(np.float64) * np.nan, array.ravel(),
         array.astype(np.int64) - 5, np.zeros(0, array.dtype), np.zeros((), array.dtype))
    )  # fmt: skip


@cache
def _judge() -> Judge:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.litmus"
        path.write_bytes(detector().to_bytes())
        return Judge(Candidates.of(path), 0.05)


_SCORED: Final = {
    "status": "scored",
    "detector": "tiny.litmus",
    "input_spec": SPEC.to_json(),
    "measurement": {
        "member_scores": [0.5, 0.25],
        "scope_distance": 1.0,
        "log_probs": [[-1.0, -2.0, -3.0, -4.0]] * 2,
        "parts": [],
        "left_out": {"part": "why"},
    },
    "notes": ["fine"],
    "classes": ["a", "b", "c", "d"],
}
_REPLIES: Final = (
    _SCORED,
    _SCORED,
    _SCORED,
    {"status": "skipped", "reason": "why"},
    {"status": "failed", "error": "why"},
    {"status": "unmatched", "takes": "3x6x5 -> 9 classes", "resizable": ["tiny.litmus"]},
)


def _read_reply(random: Random, folder: Path) -> None:
    """What the scanner makes of what a subverted child says."""
    reply = json.dumps(mutated_json(random, random.choice(_REPLIES)))
    if random.random() < 0.4:
        reply = mutated_bytes(random, reply.encode()).decode("ascii", "replace")
    answer = {"sha256": "0" * 64, "seconds": 0.1, "reply": reply}
    result = _judge().result(Target(path=folder / "m.onnx", format="onnx"), answer)
    assert result.path == folder / "m.onnx"
    if isinstance(result, Scored):
        assert (result.model_sha256, result.detector) == ("0" * 64, "tiny.litmus")
        assert np.isfinite([result.score, result.p_value, result.probability]).all()
        texts = [*result.notes, *result.classes]
    else:
        texts = [result.error if isinstance(result, Failed) else result.reason]
        assert isinstance(result, Failed | Skipped)
    assert all(text.isprintable() for text in texts)


def _read_architecture(random: Random, folder: Path) -> None:
    texts = (b"resnet:width=16,blocks=2", b'vgg:configuration=[1,"M"]', b"a.b:c.d:e=3")
    data = mutated_bytes(random, random.choice(texts), texts)
    StatedNetwork.parse(data.decode(errors="replace"), trust_code=True)


TARGETS: Final[dict[str, Fuzzed]] = {
    "onnx": Fuzzed(read=_read_onnx, allowed=(ModelError,), in_child=True),
    "tensors": Fuzzed(read=_read_tensors, allowed=(ZooError,)),
    "sidecar": Fuzzed(read=_read_sidecar, allowed=(ModelError,), in_child=True),
    "torch": Fuzzed(read=_read_torch, allowed=(ModelError,), in_child=True, prepare=_torch_files),
    "first-bytes": Fuzzed(read=_read_first_bytes, allowed=(), prepare=_torch_files),
    "detector": Fuzzed(read=_read_detector, allowed=(DetectorError,)),
    "reply": Fuzzed(read=_read_reply, allowed=()),
    "architecture": Fuzzed(read=_read_architecture, allowed=(UsageError,)),
}
