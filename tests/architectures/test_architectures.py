"""What every architecture promises."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from litmus.architectures import ARCHITECTURES, Architecture, fold_batch_norm
from litmus.errors import RecipeError
from litmus.models import InputSpec
from litmus.schema import named_from_table, to_table

GREY = InputSpec(channels=1, height=28, width=28, num_classes=10)
COLOUR = InputSpec(channels=3, height=32, width=32, num_classes=43)
every = pytest.mark.parametrize("name", ARCHITECTURES)
both = pytest.mark.parametrize("spec", [GREY, COLOUR], ids=["grey", "colour"])


def images(spec: InputSpec, n: int = 4) -> torch.Tensor:
    return torch.rand(n, *spec.image_shape, generator=torch.Generator().manual_seed(0))


def used(module: nn.Module, spec: InputSpec) -> nn.Module:
    """The module with BatchNorm statistics and affine terms that are not the initial ones."""
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.bias):
                values.data.uniform_(0.5, 1.5, generator=generator)
    with torch.no_grad():
        module.train()(images(spec, 16))
    return module.eval()


@every
@both
def test_images_become_one_row_of_logits(name: str, spec: InputSpec) -> None:
    module = ARCHITECTURES[name]().build(spec, seed=0)
    for n in (1, 4):
        logits = module.eval()(images(spec, n))
        assert logits.shape == (n, spec.num_classes)
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()
    # Logits, not probabilities.
    assert (logits.sum(dim=1) - 1).abs().max() > 1e-3


@every
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    architecture, before = ARCHITECTURES[name](), torch.get_rng_state()
    first, again, other = (architecture.build(GREY, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every
@both
def test_every_weight_learns(name: str, spec: InputSpec) -> None:
    module = ARCHITECTURES[name]().build(spec, seed=0)
    module(images(spec)).logsumexp(1).sum().backward()
    learning = [p for p in module.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learning)
    # No more than one layer is set beforehand.
    assert len(learning) >= len(list(module.parameters())) - 1


@every
@both
def test_a_skeleton_with_the_weights_is_the_network(name: str, spec: InputSpec) -> None:
    architecture, state = ARCHITECTURES[name](), torch.get_rng_state()
    module = used(architecture.build(spec, seed=0), spec)
    skeleton = architecture.skeleton(spec)
    assert torch.equal(torch.get_rng_state(), state)
    assert not skeleton.training
    assert all(p.device.type == "meta" for p in skeleton.parameters())
    skeleton.load_state_dict(module.state_dict(), assign=True)
    assert torch.equal(skeleton(images(spec)), module(images(spec)))


@every
@both
def test_folding_leaves_the_function_and_no_batch_norm(name: str, spec: InputSpec) -> None:
    module = used(ARCHITECTURES[name]().build(spec, seed=0), spec)
    expected = module(images(spec))
    folded = fold_batch_norm(module)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    torch.testing.assert_close(folded(images(spec)), expected, rtol=1e-4, atol=1e-4)


@every
def test_activations_are_modules(name: str) -> None:
    """Fitting drops them out, so it must find them."""
    module = ARCHITECTURES[name]().build(GREY, seed=0)
    assert any(isinstance(layer, nn.ReLU | nn.Tanh) for layer in module.modules())


@every
def test_it_crosses_a_recipe(name: str) -> None:
    architecture = ARCHITECTURES[name]()
    table = {"name": name, **to_table(architecture)}
    assert named_from_table(ARCHITECTURES, table, "x", "architecture") == architecture


@every
@pytest.mark.parametrize("side", [1, 2, 3, 4, 8, 12])
def test_images_too_small_are_refused_or_work(name: str, side: int) -> None:
    spec = InputSpec(channels=1, height=28, width=side, num_classes=3)
    try:
        module = ARCHITECTURES[name]().build(spec, seed=0)
    except RecipeError as fault:
        assert "leaves no pixel" in str(fault)  # noqa: PT017 - either outcome is right
    else:
        assert module.eval()(images(spec)).shape == (4, 3)


def test_the_contract_is_for_architectures_alone() -> None:
    assert all(issubclass(cls, Architecture) for cls in ARCHITECTURES.values())
