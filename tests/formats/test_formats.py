from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from torch import nn

from litmus.artifacts import encode_tensors
from litmus.formats import FORMATS, SNIFF_BYTES, Refusal, sniff
from tests.formats.onnx_models import classifier, detector

ARRAYS = {"w": np.zeros(3, np.float32)}


def saved(value: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


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
    ("content", "reason"),
    [
        (save(ARRAYS), "which network"),
        (detector().to_bytes(), "a detector"),
        (pickle.dumps([1, 2]), "pickle"),
        (saved({"w": torch.zeros(2)}), "PyTorch file"),
        (saved(nn.Linear(2, 2)), "PyTorch file"),
        (saved({"w": torch.zeros(2)}, _use_new_zipfile_serialization=False), "pickle"),
        (zipped("net/data/0", "net/code/net.py"), "TorchScript or .pt2"),
        (zipped("metadata.json", "config.json"), "Keras"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "Keras HDF5"),
    ],
)
def test_known_kinds_are_refused_with_what_to_do(content: bytes, reason: str) -> None:
    refusal = sniff(content[:SNIFF_BYTES])
    assert isinstance(refusal, Refusal)
    assert reason in refusal.reason
    assert "detector" in reason or "export it to ONNX" in refusal.reason


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


def test_every_format_names_its_suffix() -> None:
    assert {name: format.suffix for name, format in FORMATS.items()} == {
        "onnx": ".onnx",
        "zoo": ".safetensors",
    }
