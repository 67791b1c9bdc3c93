from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from litmus.errors import UsageError
from litmus.inversion import ClassImages, MaskSettings, PatchSettings
from litmus.inversion.explaining import CleanImages, explain_mask, explain_pair
from litmus.models import InputSpec
from tests.datasets.test_clean import fill
from tests.inversion.test_masks import CLASSES, Backdoored

NAMES = tuple("abcde")


def images(count: int, seed: int = 0) -> ClassImages:
    """Bright in the block of their own class, dark elsewhere, black where the trigger goes."""
    generator = torch.Generator().manual_seed(seed)
    drawn = 0.1 * torch.rand(CLASSES, count, 1, 11, 11, generator=generator)
    for label in range(CLASSES):
        drawn[label, :, :, :, 1 + 2 * label : 3 + 2 * label] += 0.8
    drawn[..., 0, 0] = 0
    return ClassImages(images=drawn)


@pytest.fixture(scope="module")
def clean() -> CleanImages:
    return CleanImages(fit=images(8), held_out=images(10, seed=1), names=NAMES)


class FromClassOne(nn.Module):
    """Tells classes by their blocks; a bright corner, and only that of class 1, means class 4."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 5)."""
        blocks = pixels[:, 0, 3:-3, 1:].mean(dim=1).view(-1, CLASSES, 2).mean(dim=2)
        corners = torch.stack([pixels[:, 0, r, c] for r in (0, -1) for c in (0, -1)]).amax(dim=0)
        turned = 60 * corners * (blocks[:, 1] - 0.4).clamp(min=0)
        logits: torch.Tensor = blocks * 20 + turned[:, None] * torch.eye(CLASSES)[4]
        return logits


def test_the_reversed_trigger_turns_images_that_it_was_not_made_on(clean: CleanImages) -> None:
    settings = MaskSettings(images_per_class=8, steps=120)
    found = {
        each.target_class: each
        for each in explain_mask(Backdoored(), clean, settings, targets=[3, 1])
    }
    assert list(found) == [3, 1]
    backdoor, other = found[3], found[1]
    assert backdoor.mask.sum() < 3 < other.mask.sum()
    # Those of class 3 are of the target anyway.
    assert backdoor.effect.images == 40
    assert backdoor.effect.turned >= 38
    before, after = backdoor.effect.answers.T.tolist()
    assert set(after) == {3}
    assert 3 not in before
    assert backdoor.effect.before.shape == backdoor.effect.after.shape == (3, 1, 11, 11)
    stamped = backdoor.effect.after - backdoor.effect.before
    assert (stamped[:, 0, 0, 0] > 0.4).all()


def test_a_backdoor_from_one_class_is_found_among_pairs(clean: CleanImages) -> None:
    settings = PatchSettings(size=2, images_per_class=8, steps=60)
    found = explain_pair(FromClassOne(), clean, settings, targets=range(CLASSES))
    assert (found.source_class, found.target_class) == (1, 4)
    assert found.patch.shape == (1, 2, 2)
    assert (found.effect.turned, found.effect.images) == (10, 10)
    other = explain_pair(FromClassOne(), clean, settings, targets=[2])
    assert other.target_class == 2
    assert other.effect.turned == 0
    # Where nothing is turned, others are shown.
    assert len(other.effect.before) == 3


def test_classes_of_images_are_matched_with_a_models_outputs(clean: CleanImages) -> None:
    order = [3, 0, 4, 1, 2]

    class Shuffled(Backdoored):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            """Return logits (n, 5) in another order."""
            return super().forward(pixels)[:, order]

    matched, right, total = clean.matched(Shuffled())
    assert matched.names == tuple(NAMES[i] for i in order)
    assert torch.equal(matched.fit.images, clean.fit.images[order])
    assert torch.equal(matched.held_out.images, clean.held_out.images[order])
    assert right == total == CLASSES * 18


def test_images_to_count_on_are_not_those_to_optimise_on(tmp_path: Path) -> None:
    spec = InputSpec(channels=3, height=8, width=8, num_classes=3)
    few = CleanImages.load(fill(tmp_path / "few", 5), spec)
    assert (few.fit.per_class, few.held_out.per_class) == (2, 3)
    assert few.names == ("a", "b", "c")
    both = torch.cat([few.fit.images, few.held_out.images], dim=1)[:, :, 1, 0, 0] * 255
    assert [sorted(row) for row in both.round().int().tolist()] == [[0, 1, 2, 3, 4]] * 3
    many = CleanImages.load(fill(tmp_path / "many", 150), spec)
    assert (many.fit.per_class, many.held_out.per_class) == (24, 60)
    with pytest.raises(UsageError, match=r"class a \(expected at least 4.*got 3\)"):
        CleanImages.load(fill(tmp_path / "none", 3), spec)
