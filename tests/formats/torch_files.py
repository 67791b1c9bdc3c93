"""PyTorch files of every kind, made on the spot; the hostile ones write a canary if opened."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from litmus.architectures.resnet import ResNet
from litmus.models import InputSpec

SPEC = InputSpec(channels=3, height=8, width=8, num_classes=3)


def network(seed: int = 0) -> nn.Module:
    """A small residual network: `resnet:width=4`."""
    return ResNet(width=4).build(SPEC, seed=seed).eval()


def saved(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def scripted(module: nn.Module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            module, torch.zeros(1, *SPEC.image_shape)
        )
        torch.jit.save(traced, buffer)
    return buffer.getvalue()


def exported(module: nn.Module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (torch.zeros(1, *SPEC.image_shape),))
        torch.export.save(program, buffer)
    return buffer.getvalue()


def rezipped(
    content: bytes,
    change: Callable[[str, bytes], bytes] = lambda name, data: data,
    *,
    compress: bool = False,
) -> bytes:
    """The same archive with other members."""
    buffer = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(buffer, "w", kind) as new,
    ):
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return buffer.getvalue()


class Canary:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path, call: Callable[[str], object] = os.mkdir) -> None:
        self._path, self._call = path, call

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call, (str(self._path),)


def with_pickle(content: bytes, value: object, protocol: int = 2) -> bytes:
    """A state dict's archive whose pickle is that of `value`."""
    data = pickle.dumps(value, protocol)
    return rezipped(content, lambda name, old: data if name.endswith("/data.pkl") else old)
