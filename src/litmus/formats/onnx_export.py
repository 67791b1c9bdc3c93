"""Writing a network as ONNX, with a batch axis of any size, and checking what was written."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from litmus.artifacts import write_atomically
from litmus.errors import MissingExtraError, ModelError
from litmus.formats import onnx_file
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.zoo_file import ZooModel
from litmus.models import Images, InputSpec

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

__all__ = ["OPSET", "export_onnx"]

OPSET: Final = 18
"""What the exporter writes without converting; GridSample, for the transformer, is from 16."""

_TOLERANCE: Final = 1e-4


def export_onnx(
    model: ZooModel | nn.Module,
    input_spec: InputSpec,
    path: str | Path,
    *,
    softmax: bool = False,
    classes: Sequence[str] = (),
    opset: int = OPSET,
) -> Path:
    """Write a network as one ONNX file that takes images in [0, 1], and return its path.

    It returns logits, or probabilities with `softmax`; `classes` (by default a zoo model's own)
    go into its metadata. Raises ModelError where onnxruntime's outputs on the written file differ
    from torch's by more than 1e-4; then the file is removed.
    """
    path = Path(path)
    if isinstance(model, ZooModel):
        classes = classes or model.classes
        model = model.torch_module()
    network = _with_softmax(model) if softmax else model
    graph = _to_graph(network.eval(), input_spec, opset)
    if classes:
        graph.metadata_props.add(key="classes", value=json.dumps(list(classes)))
    write_atomically(path, graph.SerializeToString())
    try:
        _check(network, input_spec, path, softmax=softmax)
    except ModelError:
        path.unlink()
        raise
    return path


def _with_softmax(module: nn.Module) -> nn.Module:
    from torch import nn

    return nn.Sequential(module, nn.Softmax(dim=1))


def _to_graph(network: nn.Module, input_spec: InputSpec, opset: int) -> ModelProto:
    try:
        import onnxscript  # noqa: F401
        import torch
    except ImportError as fault:
        raise MissingExtraError(
            "exporting needs PyTorch and onnxscript",
            expected="pip install 'litmus-patterns[train]'",
        ) from fault

    example = torch.zeros(2, *input_spec.image_shape)
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=["images"],
            output_names=["outputs"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    graph: ModelProto = program.model_proto
    _forget_origin(graph)
    return graph


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints, warns and logs; what goes wrong it raises, too."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _forget_origin(graph: ModelProto) -> None:
    """Drop the exporter's stack traces: they hold the paths of this machine."""
    for part in (graph, graph.graph, *graph.functions):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    values = [*graph.graph.input, *graph.graph.output, *graph.graph.value_info]
    nodes = [*graph.graph.node, *(node for function in graph.functions for node in function.node)]
    for item in (*values, *nodes, *graph.graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def _check(network: nn.Module, input_spec: InputSpec, path: Path, *, softmax: bool) -> None:
    outputs: Any = "logits" if softmax else "auto"  # as it is, not before the softmax
    written = onnx_file.load(path, Preprocessing(outputs=outputs), expected=input_spec)
    generator = np.random.default_rng(0)
    for count in (1, 5):
        images = generator.random((count, *input_spec.image_shape)).astype(np.float32)
        difference = float(np.abs(written(images) - _run(network, images)).max())
        if not difference <= _TOLERANCE:
            raise ModelError(
                "the exported file does not return what the network does",
                expected=f"a difference of at most {_TOLERANCE}",
                got=difference,
                where=path,
            )


def _run(network: nn.Module, images: Images) -> Images:
    import torch

    with torch.inference_mode():
        outputs: Images = network(torch.from_numpy(images)).numpy()
    return outputs
