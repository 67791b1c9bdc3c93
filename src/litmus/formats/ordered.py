"""A model whose classes stand in another order than a detector's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from litmus.errors import UnsupportedModelError
from litmus.models import Gradients, Images, InputSpec, LastLayer, Model, Objective, Outputs

if TYPE_CHECKING:
    from torch import nn

__all__ = ["OrderedModel"]


class OrderedModel:
    """A model with its classes put into another order: output `order[i]` comes as the i-th."""

    def __init__(self, model: Model, order: Sequence[int] | NDArray[np.int64]) -> None:
        self._model, self._order = model, np.asarray(order)
        names = getattr(model, "classes", ())
        self.classes = tuple(names[i] for i in order) if names else ()

    @property
    def notes(self) -> Sequence[str]:
        """Those of the model, which may grow while it is asked."""
        return getattr(self._model, "notes", ())

    @property
    def input_spec(self) -> InputSpec:
        """That of the model."""
        return self._model.input_spec

    @property
    def outputs(self) -> Outputs:
        """That of the model."""
        return self._model.outputs

    def __call__(self, images: Images) -> NDArray[Any]:
        """Return the outputs (n, k) in the order."""
        return self._model(images)[:, self._order]

    def last_layer(self) -> LastLayer:
        """Return the last layer in the order; raises UnsupportedModelError without one."""
        weights, bias = self._offered("last_layer")
        return weights[self._order], bias[self._order]

    def torch_module(self) -> nn.Module:
        """Return the network in the order; raises UnsupportedModelError without gradients."""
        module = self._offered("torch_module")
        from torch import nn

        from litmus.formats.torch_layers import Ordered

        return nn.Sequential(module, Ordered(self._order.tolist())).eval()

    def gradients(self) -> Gradients:
        """Return the gradients in the order; raises UnsupportedModelError without."""
        return _OrderedGradients(self._offered("gradients"), self._order)

    def _offered(self, name: str) -> Any:
        offered = getattr(self._model, name, None)
        if offered is None:
            raise UnsupportedModelError("the model can't give it", expected=f"{name}()")
        return offered()


class _OrderedGradients:
    def __init__(self, gradients: Gradients, order: NDArray[np.int64]) -> None:
        self._gradients, self._order = gradients, order
        self.input_spec = gradients.input_spec

    def logits(self, images: Images) -> NDArray[np.float32]:
        return self._gradients.logits(images)[:, self._order]

    def descend(
        self, images: Images, targets: NDArray[np.int64], objective: Objective = "cross_entropy"
    ) -> tuple[NDArray[np.float32], Images]:
        logits, gradients = self._gradients.descend(images, self._order[targets], objective)
        return logits[:, self._order], gradients
