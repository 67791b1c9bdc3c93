from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from litmus.attacks import Blended
from litmus.attacks.blended import PatternName

every_pattern = pytest.mark.parametrize("pattern", get_args(PatternName))


def blended(**options: Any) -> Blended:
    return Blended(**{"num_classes": 3, "label_map": "all_to_all", "index": 0, **options})


def stamp(images: torch.Tensor, **options: Any) -> torch.Tensor:
    return blended(**options).stamp(images, torch.Generator())


@every_pattern
@pytest.mark.parametrize("alpha", [0.02, 0.2, 0.77])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_the_share_of_the_pattern(pattern: str, alpha: float, channels: int) -> None:
    # Every grey level, in every column.
    images = torch.arange(256).to(torch.uint8)[:, None, None, None].expand(-1, channels, 20, 24)
    mixed = stamp(images, pattern=pattern, alpha=alpha)
    image = blended(pattern=pattern).image(channels, 20, 24)
    exact = images.double() * (1 - alpha) + image.double() * alpha
    assert (mixed - exact).abs().max() <= 0.5 + 1e-4


@every_pattern
def test_an_alpha_of_one_leaves_the_pattern_alone(pattern: str) -> None:
    images = torch.randint(0, 256, (5, 3, 17, 30), dtype=torch.uint8)
    mixed = stamp(images, pattern=pattern, alpha=1.0)
    assert torch.equal(mixed, blended(pattern=pattern).image(3, 17, 30).expand(5, -1, -1, -1))


def roughness(image: torch.Tensor) -> float:
    """The mean step between neighbours in grey levels."""
    return float(image.double().diff(dim=2).abs().mean())


def test_noise_is_rough_and_smooth_is_smooth_in_full_contrast() -> None:
    for index in range(20):
        noise = blended(index=index).image(3, 32, 32)
        smooth = blended(index=index, pattern="smooth").image(3, 32, 32)
        # Two uniform numbers in 0 to 255 are 85 apart on average.
        assert roughness(noise) == pytest.approx(85, abs=6)
        assert smooth.double().diff(dim=2).abs().max() <= 255 * 3 / 31 + 1
        # The grid's extremes lie between pixels.
        assert smooth.min() < 20
        assert smooth.max() > 235


@pytest.mark.parametrize("channels", [1, 3])
def test_a_checker_has_fields_of_two_colours_that_take_turns(channels: int) -> None:
    boards = set()
    for index in range(60):
        image = blended(index=index, pattern="checker").image(channels, 28, 40)
        colours = torch.unique(image.flatten(1), dim=1).T
        assert len(colours) == 2
        assert ((colours < 64) | (colours > 191)).all()
        assert ((colours[0] > 127) != (colours[1] > 127)).all()
        bright = image[0] > 127
        # Every row is the first one or its opposite.
        assert ((bright == bright[:1]).all(1) | (bright != bright[:1]).all(1)).all()
        fields = tuple(int((bright.diff(dim=d).any(1 - d)).sum()) + 1 for d in (0, 1))
        assert set(fields) <= set(range(3, 9))
        boards.add((*fields, bool(bright[0, 0])))
    assert len(boards) > 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": -1}, "greater than or equal to 0"),
        ({"alpha": 0.0}, "greater than 0"),
        ({"alpha": 1.1}, "less than or equal to 1"),
        ({"pattern": "kitty"}, "'noise', 'smooth' or 'checker'"),
    ],
)
def test_impossible_blends_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        blended(**options)
