"""Backdoor attacks: how data is poisoned.

A new attack is one file with a subclass of `Attack` and one line in `ATTACKS`.
"""

from __future__ import annotations

from typing import Final

from litmus.attacks.base import Attack, Treatment, extra_images
from litmus.attacks.patch import Patch
from litmus.attacks.triggers import Trigger, TriggerKind

__all__ = [
    "ATTACKS",
    "Attack",
    "Patch",
    "Treatment",
    "Trigger",
    "TriggerKind",
    "extra_images",
]

ATTACKS: Final[dict[str, type[Attack]]] = {"patch": Patch}
