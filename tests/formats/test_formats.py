from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from litmus.artifacts import encode_tensors
from litmus.formats import FORMATS, SNIFF_BYTES, Refusal, sniff
from tests.formats.onnx_models import classifier, detector
from tests.formats.torch_files import exported, network, saved, scripted

ARRAYS = {"w": np.zeros(3, np.float32)}


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return buffer.getvalue()


def test_formats_are_told_by_content() -> None:
    assert sniff(classifier().SerializeToString()) == "onnx"
    # A header is written with sorted keys, class names before the format.
    header = {"format": "litmus-zoo-model", "class_names": ["x" * 50] * 200}
    assert sniff(encode_tensors(ARRAYS, header)[:SNIFF_BYTES]) == "zoo"


@pytest.mark.parametrize(
    "content",
    [
        saved({"w": torch.zeros(2)}),
        saved(torch.nn.Linear(2, 2)),
        saved({"w": torch.zeros(2)}, _use_new_zipfile_serialization=False),
        scripted(network()),
        exported(network()),
        zipped("serialized_exported_program.json", "version"),  # torch.export.save before 2.8
    ],
    ids=["weights", "module", "legacy", "TorchScript", "pt2", "old pt2"],
)
def test_pytorch_files_are_told_by_content(content: bytes) -> None:
    assert sniff(content[:SNIFF_BYTES]) == "torch"


def test_bare_weights_are_told_from_zoo_files() -> None:
    assert sniff(save(ARRAYS)) == "safetensors"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (detector().to_bytes(), "a detector, not a model"),
        (pickle.dumps([1, 2]), "a pickle may run any code and is never opened; "),
        (zipped("metadata.json", "config.json"), "a Keras archive may hold code; "),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "a Keras HDF5 file may hold code; "),
    ],
)
def test_known_kinds_are_refused_with_what_to_do(content: bytes, reason: str) -> None:
    refusal = sniff(content[:SNIFF_BYTES])
    assert isinstance(refusal, Refusal)
    told = refusal.reason(Path("my models/net.h5"))
    assert told.startswith(reason)
    assert "detector" in reason or "export it to ONNX" in told
    if "Keras" in reason:
        assert told.endswith(
            "python -m tf2onnx.convert --keras 'my models/net.h5' --output 'my models/net.onnx'"
        )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        b"hello, world",
        b"\x08\x01\x12\x03abc",  # a TensorFlow SavedModel
        b"PK\x03\x04",
        b"PK\x03\x04" + bytes(40),
        b"\x7fELF" + bytes(60),
        bytes(SNIFF_BYTES),
        b"\xff" * SNIFF_BYTES,
    ],
)
def test_other_files_are_unknown(content: bytes) -> None:
    assert sniff(content) is None


def test_every_format_names_its_suffixes() -> None:
    assert {name: format.suffixes for name, format in FORMATS.items()} == {
        "onnx": (".onnx",),
        "zoo": (".safetensors",),
        "safetensors": (".safetensors",),
        "torch": (".pt", ".pth", ".pt2"),
    }


def test_pytorch_is_started_only_for_files_that_get_to_their_weights() -> None:
    starts = {
        name: [f.loads_torch(has_architecture=named) for named in (False, True)]
        for name, f in FORMATS.items()
    }
    assert starts == {
        "onnx": [False, False],
        "zoo": [True, True],
        "safetensors": [False, True],
        "torch": [False, True],
    }
