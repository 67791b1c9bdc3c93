from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from litmus.inversion import MaskSettings, PatchSettings
from litmus.reproduction import Study, open_study
from tests.conftest import Folders

Open = Callable[..., Study]


def shorten_inversions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps by default; tasks hold their settings in full, so workers take them too."""
    patches, masks = PatchSettings.__init__.__kwdefaults__, MaskSettings.__init__.__kwdefaults__
    assert patches is not None
    assert masks is not None
    monkeypatch.setitem(patches, "steps", 3)
    monkeypatch.setitem(patches, "first_rung", 1)
    monkeypatch.setitem(masks, "steps", 3)


@pytest.fixture
def opened(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Open:
    """A function that opens the small zoo for an experiment of a few seconds."""
    shorten_inversions(monkeypatch)

    def study(**changes: Any) -> Study:
        asked: dict[str, Any] = {
            "names": ["small"],
            "recipes": folders.recipes,
            "zoos": folders.zoos,
            "scales": {"small": 1.0},
            "command": "litmus reproduce",
            "num_patterns": (1, 2),
            "seeds": (0, 1),
            "attack_models": {"small": 6},
            "cleanse_models": {"small": 4},
            "fitting": {"epochs": 2},
        }
        return open_study(**{**asked, **changes})

    return study
