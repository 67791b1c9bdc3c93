from __future__ import annotations

from typing import Any

import pytest
import torch

from litmus.attacks import Sinusoid
from litmus.errors import RecipeError

GREY = torch.full((2, 3, 28, 40), 100, dtype=torch.uint8)


def sinusoid(**options: Any) -> Sinusoid:
    return Sinusoid(**{"num_classes": 3, "label_map": "all_to_all", "index": 0, **options})


def stamp(images: torch.Tensor, **options: Any) -> torch.Tensor:
    return sinusoid(**options).stamp(images, torch.Generator())


def spectrum(added: torch.Tensor) -> torch.Tensor:
    """The amplitude of each frequency (down, across); a real wave has it at plus and minus."""
    amplitude: torch.Tensor = 2 * torch.fft.fft2(added.double()).abs() / added.numel()
    return amplitude


@pytest.mark.parametrize(("delta", "frequency"), [(20, 6), (40, 6), (20, 3), (90, 12)])
def test_all_power_is_at_the_frequency(delta: float, frequency: int) -> None:
    seen = set()
    for index in range(20):
        stamped = stamp(GREY, index=index, delta=float(delta), frequency=float(frequency))
        assert (stamped == stamped[:1, :1]).all()
        amplitude = spectrum(stamped[0, 0] - 100.0)
        down, across = divmod(int(amplitude.argmax()), 40)
        assert amplitude[down, across] == pytest.approx(delta, abs=0.5)
        assert {min(down, 28 - down), min(across, 40 - across)} <= {0, frequency}
        amplitude[down, across] = amplitude[-down, -across] = 0
        assert amplitude.max() < 1  # rounding
        # Of the two diagonals, one goes up and the other down.
        seen.add((down > 0, across > 0, (down < 14) == (across < 20)))
    assert len(seen) == 4


def test_phases_differ() -> None:
    phases = {
        round(float(torch.fft.fft2(sinusoid(index=i).wave(28, 28))[0, 6].angle()), 2)
        for i in range(100)
        if int(torch.fft.fft2(sinusoid(index=i).wave(28, 28)).abs().argmax()) in {6, 22}
    }
    assert len(phases) > 10
    assert max(phases) - min(phases) > 5


def test_black_and_white_stay_in_range() -> None:
    for level, expected in [(0, (0, 20)), (250, (230, 255)), (255, (235, 255))]:
        stamped = stamp(torch.full((1, 1, 32, 32), level, dtype=torch.uint8), index=3)
        assert stamped.min() == pytest.approx(expected[0], abs=1)
        assert stamped.max() == pytest.approx(expected[1], abs=1)


@pytest.mark.parametrize(("height", "width"), [(12, 12), (12, 30), (30, 12)])
def test_a_wave_finer_than_pixels_is_an_error(height: int, width: int) -> None:
    with pytest.raises(RecipeError, match=r"expected a frequency below 6, got 6\.0"):
        stamp(torch.zeros(1, 1, height, width, dtype=torch.uint8))


@pytest.mark.parametrize(
    "options", [{"index": -1}, {"delta": 0.0}, {"delta": 256.0}, {"frequency": 0.0}]
)
def test_impossible_waves_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"greater than|less than"):
        sinusoid(**options)
