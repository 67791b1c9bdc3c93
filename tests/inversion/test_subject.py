from __future__ import annotations

import pytest
import torch

from litmus.architectures import ARCHITECTURES
from litmus.errors import UsageError
from litmus.inversion import ClassImages, prepared
from litmus.models import InputSpec
from tests.conftest import random_split

SPEC = InputSpec(channels=3, height=12, width=12, num_classes=4)


def test_images_are_drawn_by_class_without_replacement() -> None:
    split = random_split(SPEC, per_class=9)
    drawn = ClassImages.draw(split, SPEC, per_class=6)
    assert (drawn.num_classes, drawn.per_class) == (4, 6)
    assert drawn.images.shape == (4, 6, 3, 12, 12)
    for label, images in enumerate(drawn.images):
        own = split.images[split.of_class(label)].float() / 255
        matches = (images[:, None] == own[None]).flatten(2).all(dim=2)
        assert matches.sum(dim=1).tolist() == [1] * 6
        assert matches.sum(dim=0).max() == 1
    again, other = (ClassImages.draw(split, SPEC, per_class=6, seed=seed) for seed in (0, 1))
    assert torch.equal(drawn.images, again.images)
    assert not torch.equal(drawn.images, other.images)


def test_too_few_or_misshapen_images_are_refused() -> None:
    split = random_split(SPEC, per_class=3)
    with pytest.raises(UsageError, match=r"class 0 \(expected 4, got 3\)"):
        ClassImages.draw(split, SPEC, per_class=4)
    grey = InputSpec(channels=1, height=12, width=12, num_classes=4)
    with pytest.raises(UsageError, match="another shape"):
        ClassImages.draw(split, grey, per_class=2)


@pytest.mark.parametrize("name", ["vgg", "resnet"])
def test_a_prepared_network_is_a_copy_of_the_same_function(name: str) -> None:
    spec = InputSpec(channels=3, height=32, width=32, num_classes=4)
    module = ARCHITECTURES[name]().build(spec, seed=0)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    ready = prepared(module)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ready(images), module.eval()(images), atol=1e-4, rtol=1e-4)
    assert not any(p.requires_grad for p in ready.parameters())
    assert all(p.requires_grad for p in module.parameters())
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
