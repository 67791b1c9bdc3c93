"""The command that exports a model which Litmus does not open to ONNX, for whoever trusts it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from litmus.models import InputSpec

__all__ = ["export_line"]

_TORCH: Final = 'python -c "import sys, torch; torch.onnx.export({call})" {file} {onnx}'
_KERAS: Final = "python -m tf2onnx.convert --keras {file} --output {onnx}"

_LINES: Final = {
    "torchscript": _TORCH.replace(
        "{call}", "torch.jit.load(sys.argv[1]).eval(), ({images},), sys.argv[2], dynamo=False"
    ),
    "pt2": _TORCH.replace("{call}", "torch.export.load(sys.argv[1]), f=sys.argv[2]"),
    "module": _TORCH.replace(
        "{call}",
        "torch.load(sys.argv[1], weights_only=False).eval(), ({images},), sys.argv[2]",
    ),
    "keras": _KERAS,
}


def export_line(kind: str, path: Path, images: InputSpec | None = None) -> str:
    """Return the shell's line for a `torchscript`, `pt2`, `module` or `keras` file.

    A network's example is black images of the shape `images`, by default C, H, W to be filled in.
    """
    shape = ", ".join(map(str, images.image_shape)) if images else "C, H, W"
    return _LINES[kind].format(
        images=f"torch.zeros(1, {shape})",
        file=shlex.quote(str(path)),
        onnx=shlex.quote(str(path.with_suffix(".onnx"))),
    )
