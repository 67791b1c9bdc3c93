"""Backdoor attacks: how data is poisoned.

A new attack is one file with a subclass of `Attack` and one line in `ATTACKS`.
"""

from __future__ import annotations

from typing import Final

from litmus.attacks.base import Attack, Treatment, extra_images
from litmus.attacks.blended import Blended
from litmus.attacks.patch import Patch
from litmus.attacks.pixels import Pixels
from litmus.attacks.shapes import TriggerShape
from litmus.attacks.sinusoid import Sinusoid
from litmus.attacks.triggers import Trigger, TriggerKind
from litmus.attacks.wanet import WaNet

__all__ = [
    "ATTACKS",
    "Attack",
    "Blended",
    "Patch",
    "Pixels",
    "Sinusoid",
    "Treatment",
    "Trigger",
    "TriggerKind",
    "TriggerShape",
    "WaNet",
    "extra_images",
]

ATTACKS: Final[dict[str, type[Attack]]] = {
    "patch": Patch,
    "blended": Blended,
    "sinusoid": Sinusoid,
    "wanet": WaNet,
    "pixels": Pixels,
}
