"""What every architecture promises."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any, get_args

import pytest
import torch
from torch import nn

from litmus.architectures import ACTIVATIONS, ARCHITECTURES, Architecture, fold_batch_norm
from litmus.architectures.blocks import Activation
from litmus.errors import RecipeError
from litmus.models import InputSpec
from litmus.schema import named_from_table, to_table
from tests.architectures.variants import VARIANTS, Options, every, every_variant

GREY = InputSpec(channels=1, height=28, width=28, num_classes=10)
COLOUR = InputSpec(channels=3, height=32, width=32, num_classes=43)
ACTIVATION_TYPES = tuple(ACTIVATIONS.values())
# A norm behind a sum or a concatenation has no convolution to be folded into.
NORM_FIRST = {"wide_resnet", "densenet"}
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
    # Dropout draws from the global generator.
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        module.train()(images(spec, 16))
    return module.eval()


def built(name: str, options: Options, spec: InputSpec, *, seed: int = 0) -> nn.Module:
    return ARCHITECTURES[name](**options).build(spec, seed=seed)


def count_norms(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


@every_variant
@both
def test_images_become_one_row_of_logits(name: str, options: Options, spec: InputSpec) -> None:
    module = built(name, options, spec)
    for n in (1, 4):
        logits = module.eval()(images(spec, n))
        assert logits.shape == (n, spec.num_classes)
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()
    # Logits, not probabilities.
    assert (logits.sum(dim=1) - 1).abs().max() > 1e-3


@every_variant
def test_the_seed_alone_decides_the_weights(name: str, options: Options) -> None:
    architecture, before = ARCHITECTURES[name](**options), torch.get_rng_state()
    first, again, other = (architecture.build(GREY, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_variant
@both
def test_every_weight_learns(name: str, options: Options, spec: InputSpec) -> None:
    module = built(name, options, spec).eval()
    module(images(spec)).logsumexp(1).sum().backward()
    learning = [p for p in module.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learning)
    # No more than one layer is set beforehand.
    assert len(learning) >= len(list(module.parameters())) - 1


@every_variant
@both
def test_a_skeleton_with_the_weights_is_the_network(
    name: str, options: Options, spec: InputSpec
) -> None:
    architecture, state = ARCHITECTURES[name](**options), torch.get_rng_state()
    module = used(architecture.build(spec, seed=0), spec)
    skeleton = architecture.skeleton(spec)
    assert torch.equal(torch.get_rng_state(), state)
    assert not skeleton.training
    assert all(p.device.type == "meta" for p in skeleton.parameters())
    skeleton.load_state_dict(module.state_dict(), assign=True)
    assert torch.equal(skeleton(images(spec)), module(images(spec)))


@every_variant
@both
def test_folding_leaves_the_function_and_no_batch_norm(
    name: str, options: Options, spec: InputSpec
) -> None:
    module = used(built(name, options, spec), spec)
    expected, before = module(images(spec)), count_norms(module)
    folded = fold_batch_norm(module)
    if name not in NORM_FIRST:
        assert count_norms(folded) == 0
    elif name == "wide_resnet" or options.get("bottleneck"):
        assert count_norms(folded) <= 0.7 * before
    torch.testing.assert_close(folded(images(spec)), expected, rtol=1e-4, atol=1e-4)


def test_the_names_of_activations_are_in_one_place() -> None:
    assert tuple(ACTIVATIONS) == get_args(Activation)


@every
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_activations_are_modules(name: str, activation: Activation | None) -> None:
    """Fitting drops them out, so it must find them."""
    if activation and "activation" not in {field.name for field in fields(ARCHITECTURES[name])}:
        pytest.skip("has no choice")
    options = {"activation": activation} if activation else {}
    module = built(name, options, GREY)
    found = {type(layer) for layer in module.modules() if isinstance(layer, ACTIVATION_TYPES)}
    # The localiser of the spatial transformer keeps its own.
    own = {nn.ReLU} if name == "vgg_stn" else set()
    assert found == {ACTIVATIONS[activation or "relu"]} | own


@every_variant
def test_it_crosses_a_recipe(name: str, options: Options) -> None:
    architecture = ARCHITECTURES[name](**options)
    table = {"name": name, **to_table(architecture)}
    assert named_from_table(ARCHITECTURES, table, "x", "architecture") == architecture


@every_variant
@pytest.mark.parametrize("side", [1, 2, 3, 4, 8, 12])
def test_images_too_small_are_refused_or_work(name: str, options: Options, side: int) -> None:
    spec = InputSpec(channels=1, height=28, width=side, num_classes=3)
    try:
        module = built(name, options, spec)
    except RecipeError as fault:
        assert "leaves no pixel" in str(fault)  # noqa: PT017 - either outcome is right
    else:
        assert module.eval()(images(spec)).shape == (4, 3)


def test_the_contract_is_for_architectures_alone() -> None:
    assert all(issubclass(cls, Architecture) for cls in ARCHITECTURES.values())


def test_every_architecture_is_tried_with_other_parameters() -> None:
    assert VARIANTS.keys() == ARCHITECTURES.keys()


FIRST_ZOOS: dict[str, tuple[dict[str, Any], str]] = {
    "vgg": (
        {
            "width": 16,
            "stem_stride": 1,
            "configuration": [1, 2, "M", 3, 3, "M"],
            "hidden": 0,
        },
        "519c810352edb245",
    ),
    "vgg_stn": (
        {"stem": 32, "channels": [64, 128, 128], "localiser_width": 8},
        "7d70e3fa9ea8a54b",
    ),
    "vgg_whitened": ({"stem": 32, "channels": [64, 128, 128]}, "bf71817d0d24f6ac"),
    "lenet5": ({"activation": "relu"}, "8ab5148bae610955"),
    "badnets_cnn": ({"hidden": 512}, "2987a57fa66bb04a"),
    "resnet": ({"width": 16, "blocks": 1, "stem_stride": 1}, "544a1256dde3c200"),
}


@pytest.mark.parametrize("name", FIRST_ZOOS)
def test_what_the_first_zoos_hold_never_changes(name: str) -> None:
    """A model's id hashes the table; its file holds weights by name."""
    table, expected = FIRST_ZOOS[name]
    architecture = ARCHITECTURES[name]()
    assert to_table(architecture) == table
    state = architecture.skeleton(COLOUR).state_dict()
    shapes = "\n".join(f"{key} {tuple(tensor.shape)}" for key, tensor in state.items())
    assert hashlib.sha256(shapes.encode()).hexdigest()[:16] == expected
