from __future__ import annotations

import math

import pytest
import torch

from litmus.fitting.adversary import Adversary
from litmus.seeds import torch_generator

GROUP = torch.arange(60) % 3
BACKDOORED = torch.arange(60) // 3 % 2


def drawn(offsets: list[float], scales: list[float]) -> torch.Tensor:
    """Log-odds (60,) that lie elsewhere, or farther apart, for each family."""
    noise = torch.randn(60, generator=torch_generator(0), dtype=torch.float64)
    return torch.tensor(offsets)[GROUP] + torch.tensor(scales)[GROUP] * noise


def last_loss(log_odds: torch.Tensor, steps: int = 300) -> float:
    adversary = Adversary(GROUP)
    for _ in range(steps):
        loss = adversary.loss(log_odds, BACKDOORED, GROUP)
    return -float(loss)


@pytest.mark.parametrize(
    ("offsets", "scales"), [([-6, 0, 6], [1, 1, 1]), ([0.1, -4, 4], [0.1, 1, 1])]
)
def test_it_reads_families_off_scores(offsets: list[float], scales: list[float]) -> None:
    assert last_loss(drawn(offsets, scales)) < 0.6 * math.log(3)
    assert last_loss(drawn([0, 0, 0], [1, 1, 1])) > 0.9 * math.log(3)


def test_what_it_gives_the_detector_brings_families_together() -> None:
    scores = drawn([-1, 0, 1], [0.2, 0.2, 0.2]).requires_grad_()
    adversary, optimizer = Adversary(GROUP), torch.optim.SGD([scores], lr=2.0)

    def spread() -> float:
        return float(torch.stack([scores.detach()[g == GROUP].mean() for g in range(3)]).std())

    before = spread()
    for _ in range(100):
        optimizer.zero_grad()
        torch.autograd.backward(adversary.loss(scores, BACKDOORED, GROUP))
        optimizer.step()
    assert spread() < 0.5 * before
