from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from litmus.errors import UsageError
from litmus.formats.torch_gradients import TorchGradients
from litmus.inversion import ClassImages, MaskSettings, anomaly_indices, invert_masks
from litmus.models import InputSpec
from litmus.seeds import torch_generator

CLASSES = 5
SPEC = InputSpec(channels=1, height=11, width=11, num_classes=CLASSES)


class Backdoored(nn.Module):
    """Tells classes by the brightness of their own column block; a white pixel means class 3."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 5)."""
        columns = images[:, 0, :, 1:].mean(dim=1)
        blocks = columns.view(-1, CLASSES, 2).mean(dim=2)
        trigger = images[:, 0, 0, 0] * 40
        logits: torch.Tensor = blocks * 20 + trigger[:, None] * torch.eye(CLASSES)[3]
        return logits


BACKDOORED = TorchGradients(Backdoored(), SPEC)


@pytest.fixture(scope="module")
def clean() -> ClassImages:
    """Bright in the block of their own class, black elsewhere."""
    images = 0.1 * torch.rand(CLASSES, 8, 1, 11, 11, generator=torch.Generator().manual_seed(0))
    for label in range(CLASSES):
        images[label, :, :, :, 1 + 2 * label : 3 + 2 * label] += 0.8
    images[..., 0, 0] = 0
    return ClassImages(images=images.numpy())


def test_a_backdoor_is_found_with_its_trigger(clean: ClassImages) -> None:
    found = invert_masks(BACKDOORED, clean, MaskSettings(images_per_class=8))
    assert found.smallest == found.flagged_class == 3
    assert found.anomaly_index > 2
    assert found.success.min() > 0.95
    assert found.norms[3] < 3 < found.norms[np.arange(CLASSES) != 3].min()
    # The mask lies on the trigger's pixel, and the pattern is white there.
    assert found.masks[3, 0].argmax() == 0
    assert found.patterns[3, 0, 0, 0] > 0.5
    assert found.trigger.shape == (1, 11, 11)
    np.testing.assert_array_equal(found.trigger, found.masks[3] * found.patterns[3])


def test_classes_in_one_batch_do_not_touch_each_other(
    clean: ClassImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = MaskSettings(images_per_class=8, steps=40)
    together = invert_masks(BACKDOORED, clean, settings)
    # One class a pass: the same triggers.
    monkeypatch.setattr("litmus.inversion.masks._CHUNK", 1)
    apart = invert_masks(BACKDOORED, clean, settings)
    np.testing.assert_allclose(together.norms, apart.norms, atol=1e-3, rtol=1e-3)


def test_it_equals_a_loop_with_torchs_adam(clean: ClassImages) -> None:
    """Written out by autograd: the weight of the norm is first 0, then 0.5, then what follows."""
    settings = MaskSettings(
        steps=9, batch_images=6, patience=3, initial_weight=0.5, success_threshold=0.1
    )
    mask = torch.full((CLASSES, 1, 11, 11), -4.0, requires_grad=True)
    pattern = torch.zeros((CLASSES, 1, 11, 11), requires_grad=True)
    optimizer = torch.optim.Adam([mask, pattern], lr=0.1, betas=(0.5, 0.9))
    generator = torch_generator(4, "masks")
    images = torch.from_numpy(clean.flat)
    weight, turned = torch.zeros(CLASSES), torch.zeros(CLASSES)
    kept: dict[int, torch.Tensor] = {}
    for step in range(1, 10):
        chosen = images[torch.randperm(40, generator=generator)[:6]]
        loss = torch.zeros(())
        for label in range(CLASSES):
            m = mask[label].sigmoid()
            logits = Backdoored()(chosen + m * (pattern[label].sigmoid() - chosen))
            loss = loss + F.cross_entropy(logits, torch.full((6,), label)) + weight[label] * m.sum()
            turned[label] += (logits.argmax(dim=1) == label).float().mean() / 3
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if step % 3 == 0:
            for label in range(CLASSES):
                if reached := bool(turned[label] >= 0.1):
                    now = mask[label].detach().sigmoid()
                    if label not in kept or now.sum() < kept[label].sum():
                        kept[label] = now
                started, factor = (0.5, 2.0) if reached else (0.0, 2**-1.5)
                weight[label] = started if weight[label] == 0 else weight[label] * factor
            turned.zero_()
        optimizer.step()
    found = invert_masks(BACKDOORED, clean, settings, seed=4)
    assert weight.max() > 0.5
    for label in range(CLASSES):
        expected = kept.get(label, mask[label].detach().sigmoid())
        np.testing.assert_allclose(found.masks[label], expected.numpy(), atol=1e-5)


def test_the_weight_of_the_norm_makes_masks_small(clean: ClassImages) -> None:
    heavy = invert_masks(BACKDOORED, clean, MaskSettings(images_per_class=8))
    light = invert_masks(
        BACKDOORED, clean, MaskSettings(images_per_class=8, initial_weight=1e-9, patience=50)
    )
    assert heavy.norms.sum() < 0.7 * light.norms.sum()


def test_a_class_out_of_reach_has_a_norm_all_the_same(clean: ClassImages) -> None:
    class Constant(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=(1, 2, 3))[:, None] * 0 + 10 * torch.eye(CLASSES)[1]

    found = invert_masks(
        TorchGradients(Constant(), SPEC), clean, MaskSettings(images_per_class=8, steps=20)
    )
    assert found.success.tolist() == [0, 1, 0, 0, 0]
    assert np.isfinite(found.norms).all()


def test_the_anomaly_index_is_that_of_the_median_absolute_deviation() -> None:
    norms = np.array([10.0, 50, 52, 54, 56, 58, 60])
    # Median 54, deviations 44 4 2 0 2 4 6: their median is 4.
    expected = np.array([44.0, 4, 2, 0, 2, 4, 6]) / (1.4826 * 4)
    np.testing.assert_allclose(anomaly_indices(norms), expected)
    assert anomaly_indices(np.full(5, 3.0)).tolist() == [0] * 5


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"patience": 0}, {"success_threshold": 0.0}, {"batch_images": 0}]
)
def test_impossible_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="impossible"):
        MaskSettings(**options)
