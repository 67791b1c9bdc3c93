from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from litmus.errors import UsageError
from litmus.inversion import ClassImages, MaskSettings, anomaly_indices, invert_masks

CLASSES = 5


class Backdoored(nn.Module):
    """Tells classes by the brightness of their own column block; a white pixel means class 3."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 5)."""
        columns = images[:, 0, :, 1:].mean(dim=1)
        blocks = columns.view(-1, CLASSES, 2).mean(dim=2)
        trigger = images[:, 0, 0, 0] * 40
        logits: torch.Tensor = blocks * 20 + trigger[:, None] * torch.eye(CLASSES)[3]
        return logits


@pytest.fixture(scope="module")
def clean() -> ClassImages:
    """Bright in the block of their own class, black elsewhere."""
    images = 0.1 * torch.rand(CLASSES, 8, 1, 11, 11, generator=torch.Generator().manual_seed(0))
    for label in range(CLASSES):
        images[label, :, :, :, 1 + 2 * label : 3 + 2 * label] += 0.8
    images[..., 0, 0] = 0
    return ClassImages(images=images)


def test_a_backdoor_is_found_with_its_trigger(clean: ClassImages) -> None:
    found = invert_masks(Backdoored(), clean, MaskSettings(images_per_class=8))
    assert found.smallest == found.flagged_class == 3
    assert found.anomaly_index > 2
    assert found.success.min() > 0.95
    assert found.norms[3] < 3 < found.norms[torch.arange(CLASSES) != 3].min()
    # The mask lies on the trigger's pixel, and the pattern is white there.
    assert found.masks[3, 0].argmax() == 0
    assert found.patterns[3, 0, 0, 0] > 0.5
    assert found.trigger.shape == (1, 11, 11)
    assert torch.equal(found.trigger, found.masks[3] * found.patterns[3])


def test_classes_in_one_batch_do_not_touch_each_other(
    clean: ClassImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = MaskSettings(images_per_class=8, steps=40)
    together = invert_masks(Backdoored(), clean, settings)
    # One class a pass: the same triggers.
    monkeypatch.setattr("litmus.inversion.masks._CHUNK", 1)
    apart = invert_masks(Backdoored(), clean, settings)
    torch.testing.assert_close(together.norms, apart.norms, atol=1e-3, rtol=1e-3)


def test_the_weight_of_the_norm_makes_masks_small(clean: ClassImages) -> None:
    heavy = invert_masks(Backdoored(), clean, MaskSettings(images_per_class=8))
    light = invert_masks(
        Backdoored(), clean, MaskSettings(images_per_class=8, initial_weight=1e-9, patience=50)
    )
    assert heavy.norms.sum() < 0.7 * light.norms.sum()


def test_a_class_out_of_reach_has_a_norm_all_the_same(clean: ClassImages) -> None:
    class Constant(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=(1, 2, 3))[:, None] * 0 + 10 * torch.eye(CLASSES)[1]

    found = invert_masks(Constant(), clean, MaskSettings(images_per_class=8, steps=20))
    assert found.success.tolist() == [0, 1, 0, 0, 0]
    assert found.norms.isfinite().all()


def test_the_anomaly_index_is_that_of_the_median_absolute_deviation() -> None:
    norms = torch.tensor([10.0, 50, 52, 54, 56, 58, 60])
    # Median 54, deviations 44 4 2 0 2 4 6: their median is 4.
    expected = torch.tensor([44.0, 4, 2, 0, 2, 4, 6]).double() / (1.4826 * 4)
    torch.testing.assert_close(anomaly_indices(norms), expected)
    assert anomaly_indices(torch.full((5,), 3.0)).tolist() == [0] * 5


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"patience": 0}, {"success_threshold": 0.0}, {"batch_images": 0}]
)
def test_impossible_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="impossible"):
        MaskSettings(**options)
