"""An opponent that reads a model's family off its score, for scores that do not tell it."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["Adversary"]

_LEARNING_RATE = 0.03
"""Faster than the head that it follows."""


class Adversary:
    """A softmax classifier from a model's log-odds, given its label, to its family.

    It sees the log-odds and their square, so that it finds families whose scores lie higher,
    lower, or wider than those of other families. What it gains goes into the detector's loss with
    the sign reversed (Ganin & Lempitsky 2015; for each label by itself as Long et al. 2018).
    """

    def __init__(self, group: torch.Tensor) -> None:
        self._families = int(group.max()) + 1
        self._weight = torch.zeros(2, self._families, 3, dtype=torch.float64, requires_grad=True)
        self._optimizer = torch.optim.Adam([self._weight], lr=_LEARNING_RATE)

    def loss(
        self, log_odds: torch.Tensor, backdoored: torch.Tensor, group: torch.Tensor
    ) -> torch.Tensor:
        """Take one step on a minibatch, all (n,), and return what the detector has to add.

        That is the negative cross-entropy of the families, in which the adversary is constant.
        """
        self._optimizer.zero_grad()
        torch.autograd.backward(
            self._cross_entropy(self._weight, log_odds.detach(), backdoored, group)
        )
        self._optimizer.step()
        return -self._cross_entropy(self._weight.detach(), log_odds, backdoored, group)

    def _cross_entropy(
        self,
        weight: torch.Tensor,
        log_odds: torch.Tensor,
        backdoored: torch.Tensor,
        group: torch.Tensor,
    ) -> torch.Tensor:
        # Squashed, or one outlier would rule the square.
        score = torch.tanh(log_odds / 4)
        feature = torch.stack([score, score.square(), torch.ones_like(score)], dim=1)
        return F.cross_entropy(torch.einsum("nfc,nc->nf", weight[backdoored], feature), group)
