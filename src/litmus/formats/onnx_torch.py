"""An ONNX graph as a PyTorch module, for what needs its gradients, checked against onnxruntime.

The graph may be hostile; call it in a child process only. Its operators come from onnx2torch, its
nodes are run one after the other by a loop of ours. onnx2torch's own `convert` is not called: it
has torch.fx write the network down as Python source, in which the file's names for its nodes stand
unescaped, and run that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from litmus.errors import LitmusError, ModelError, UnsupportedModelError
from litmus.formats.onnx_graph import FLOAT16
from litmus.formats.onnx_input import ImageInput
from litmus.formats.onnx_operators import load_onnx2torch, operator_of
from litmus.models import LOG_FLOOR, Images, Outputs

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

__all__ = ["TOLERANCE", "to_torch"]

TOLERANCE: Final = 1e-3
"""How far outputs may be from onnxruntime's, as a share of the largest one (or of 0.1)."""
_HALF_TOLERANCE: Final = 2e-2
"""The same where onnxruntime computes in float16 and PyTorch in float32."""
_EXAMPLES: Final = 4
_BFLOAT16: Final = 16


def to_torch(
    model: ModelProto,
    image_input: ImageInput,
    outputs: Outputs,
    reference: Callable[[Images], NDArray[Any]],
    where: object,
) -> nn.Module:
    """Return a float32 module in evaluation mode, images (n, c, h, w) in [0, 1] to logits (n, k).

    Preprocessing, layout and channel order are inside; where the graph returns probabilities, their
    floored logarithms are the logits. A graph for batches of one size takes any number of images.
    `reference` is what onnxruntime returns for images. Raises UnsupportedModelError, naming the
    operator, where one has no conversion or fails, and where the outputs differ from the
    reference by more than `TOLERANCE`; ModelError where they are no numbers; MissingExtraError
    without onnx2torch.
    """
    load_onnx2torch()
    images = _examples(image_input.image_shape)
    expected = np.asarray(reference(images), dtype=np.float64)
    if not np.isfinite(expected).all():
        raise ModelError("the model's outputs are not numbers", got="NaN or infinity", where=where)
    allowed = _HALF_TOLERANCE if _computes_in_half(model) else TOLERANCE
    limit = allowed * max(0.1, float(np.abs(expected).max()))
    refusal: UnsupportedModelError | None = None
    for batch in dict.fromkeys((None, image_input.batch)):
        try:
            # Whatever the caller has switched off: gradients are the point.
            with torch.inference_mode(mode=False), torch.enable_grad():
                network = _Network(model, image_input, batch, where)
                _compare(_run(network, images, where), expected, limit, where)
            return _Logits(network, outputs).eval().requires_grad_(False)
        except UnsupportedModelError as fault:
            # A graph that was written for one batch size need not run on any other.
            refusal = fault
    assert refusal is not None
    raise refusal


def _compare(
    found: NDArray[np.float64], expected: NDArray[np.float64], limit: float, where: object
) -> None:
    same_shape = found.shape == expected.shape
    difference = float(np.abs(found - expected).max()) if same_shape else np.inf
    if not difference <= limit:
        raise UnsupportedModelError(
            "converted to PyTorch, the model answers otherwise",
            expected=f"{expected.shape}, within {limit:.2g} of onnxruntime's outputs",
            got=f"{difference:.2g} off" if same_shape else found.shape,
            where=where,
        )


def _examples(shape: tuple[int, int, int]) -> Images:
    """Images of bytes, so that an input of bytes is not rounded: dark ones and bright ones."""
    random = np.random.default_rng(0)
    tops = np.linspace(64, 255, _EXAMPLES).reshape(-1, 1, 1, 1)
    pixels = np.rint(random.random((_EXAMPLES, *shape)) * tops)
    return (pixels / 255).astype(np.float32)


def _computes_in_half(model: ModelProto) -> bool:
    types = {tensor.data_type for tensor in model.graph.initializer}
    return bool(types & {FLOAT16, _BFLOAT16})


def _run(network: nn.Module, images: Images, where: object) -> NDArray[np.float64]:
    """Return the outputs; raises UnsupportedModelError where their gradients can't be had."""
    x = torch.from_numpy(images).requires_grad_()
    found = network(x)
    if not found.requires_grad:
        raise UnsupportedModelError("no gradient of its outputs reaches the image", where=where)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    if not gradient.isfinite().all():
        raise UnsupportedModelError("the gradients of its outputs are not numbers", where=where)
    outputs: NDArray[np.float64] = found.detach().double().numpy()
    return outputs


class _Logits(nn.Module):
    def __init__(self, network: nn.Module, outputs: Outputs) -> None:
        super().__init__()
        self.network, self.outputs = network, outputs

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.network(images)
        if self.outputs == "logits":
            return found
        return torch.log(found.clamp(min=0) + np.exp(LOG_FLOOR))


class _Network(nn.Module):
    """What leads to a graph's input, and the graph; in batches of one size where it has one."""

    def __init__(
        self, model: ModelProto, image_input: ImageInput, batch: int | None, where: object
    ) -> None:
        super().__init__()
        stated = image_input.preprocessing
        self.batch, self.nhwc = batch, image_input.layout == "nhwc"
        self.bgr, self.scale = stated.channels == "bgr", float(stated.scale)
        self.mean, self.std = (
            nn.Buffer(torch.tensor(value, dtype=torch.float32).view(-1, 1, 1))
            for value in (stated.mean, stated.std)
        )
        self.graph = _Graph(
            _inlined(model, where),
            image_input.name,
            opened=image_input.batch if batch is None else None,
            where=where,
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = images.flip(1) if self.bgr else images
        values = (values * self.scale - self.mean) / self.std
        if self.nhwc:
            values = values.permute(0, 2, 3, 1)
        if self.batch is None:
            found: torch.Tensor = self.graph(values)
            return found
        # The last batch is filled up, as onnxruntime gets it.
        missing = -len(values) % self.batch
        filled = torch.cat([values, values[-1:].expand(missing, *values.shape[1:])])
        return torch.cat([self.graph(part) for part in torch.split(filled, self.batch)])[
            : len(values)
        ]


def _inlined(model: ModelProto, where: object) -> ModelProto:
    """The model without local functions."""
    if not model.functions:
        return model
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as fault:  # its types differ between versions of onnx
        raise UnsupportedModelError(
            "its functions can't be converted to PyTorch", got=str(fault)[:200], where=where
        ) from fault


class _Step(NamedTuple):
    """A node by the names of its values; `spent` are those that nothing needs after it."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    spent: tuple[str, ...]


class _Graph(nn.Module):
    """The nodes that lead to a graph's output, run in their order.

    The file's names are keys of dictionaries and nothing else. What depends on no image is computed
    once, here. Where a fixed batch size is `opened`, values are reshaped to batches of any size.
    """

    def __init__(
        self, model: ModelProto, source: str, *, opened: int | None, where: object
    ) -> None:
        super().__init__()
        graph, opset = model.graph, _opset(model)
        self._source, self._result, self._where = source, graph.output[0].name, where
        nodes = _needed(graph, self._result)
        known = self._constants(graph, nodes)
        self._steps: list[_Step] = []
        self._nodes = nn.ModuleList()
        for node in nodes:
            step, module = self._converted(node, opset)
            if all(name in known for name in step.inputs if name):
                known |= self._call(step, module, known)
                continue
            if opened is not None and step.kind == "Reshape" and step.inputs[0] not in known:
                module = _OpenReshape(module, opened)
            self._steps.append(step)
            self._nodes.append(module)
        self._forget_early()
        self._keys = self._keep(known)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values: dict[str, Any] = {name: self._buffers[key] for name, key in self._keys.items()}
        values[self._source] = images
        for step, module in zip(self._steps, self._nodes, strict=True):
            found = self._call(step, module, values)
            for name in step.spent:
                del values[name]
            values |= found
        outputs: torch.Tensor = values[self._result]
        return outputs

    def _call(self, step: _Step, module: nn.Module, values: Mapping[str, Any]) -> dict[str, Any]:
        """Run a node; raises UnsupportedModelError where that fails."""
        try:
            found = module(*(values[name] if name else None for name in step.inputs))
        except Exception as fault:
            raise self._refusal(step.kind, fault) from fault
        several = found if isinstance(found, list | tuple) else (found,)
        return dict(zip(step.outputs, map(_as_float32, several), strict=False))

    def _converted(self, node: NodeProto, opset: int) -> tuple[_Step, nn.Module]:
        if node.domain not in ("", "ai.onnx"):
            raise self._refusal(f"{node.op_type} of {node.domain}", NotImplementedError())
        try:
            operator = operator_of(node, opset)
        except Exception as fault:
            raise self._refusal(node.op_type, fault) from fault
        step = _Step(kind=node.op_type, inputs=operator.inputs, outputs=operator.outputs, spent=())
        return step, operator.module.eval()

    def _constants(self, graph: GraphProto, nodes: Sequence[NodeProto]) -> dict[str, torch.Tensor]:
        from onnx import numpy_helper

        wanted = {name for node in nodes for name in node.input}
        try:
            return {
                tensor.name: _as_float32(torch.from_numpy(numpy_helper.to_array(tensor).copy()))
                for tensor in graph.initializer
                if tensor.name in wanted
            }
        except Exception as fault:
            raise self._refusal("a constant", fault) from fault

    def _forget_early(self) -> None:
        """Note which values are needed by no later node, so that they take no memory."""
        last = {name: place for place, step in enumerate(self._steps) for name in step.inputs}
        for place, step in enumerate(self._steps):
            names = {name for name in step.inputs if name and name != self._result}
            spent = tuple(sorted(name for name in names if last[name] == place))
            self._steps[place] = step._replace(spent=spent)

    def _keep(self, known: Mapping[str, torch.Tensor]) -> dict[str, str]:
        """Keep the constants that nodes take as buffers, and return those by name."""
        wanted = {name for step in self._steps for name in step.inputs} | {self._result}
        keys = {name: f"constant_{place}" for place, name in enumerate(sorted(wanted & set(known)))}
        for name, key in keys.items():
            self.register_buffer(key, known[name])
        return keys

    def _refusal(self, kind: str, fault: Exception) -> Exception:
        """Say which operator it was; what is no fault of it stays what it is."""
        if isinstance(fault, MemoryError | LitmusError) or "allocate memory" in str(fault):
            return fault
        text = " ".join(str(fault).split())[:200]
        return UnsupportedModelError(
            f"its {kind} can't be converted to PyTorch", got=text or None, where=self._where
        )


class _OpenReshape(nn.Module):
    """A Reshape to batches of a fixed size, for batches of any size."""

    def __init__(self, module: nn.Module, fixed: int) -> None:
        super().__init__()
        self.module, self.fixed = module, fixed

    def forward(self, values: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
        if shape[0] == self.fixed:
            shape = torch.cat([torch.tensor([len(values)]), shape[1:]])
        reshaped: torch.Tensor = self.module(values, shape)
        return reshaped


def _as_float32(value: Any) -> Any:
    """Doubles and halves become what the network runs in."""
    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.float() if is_float else value


def _opset(model: ModelProto) -> int:
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)


def _needed(graph: GraphProto, result: str) -> list[NodeProto]:
    """The nodes that lead to a value, in their order: an ONNX graph is sorted."""
    wanted, found = {result}, []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            found.append(node)
    return found[::-1]
