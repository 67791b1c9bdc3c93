from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from litmus.detectors import fit
from litmus.formats import zoo_file
from litmus.zoo import Zoo
from litmus.zoo.measured import remembered
from tests.conftest import linked_folders


@pytest.fixture
def zoo(small_zoo: Zoo, tmp_path: Path) -> Zoo:
    """The small zoo in a folder of this test's own."""
    return Zoo.open(linked_folders(small_zoo, tmp_path).zoos / "small")


def test_what_was_read_is_not_read_again(zoo: Zoo) -> None:
    first, second = zoo.entries[:2]
    calls = []

    def read() -> list[float]:
        calls.append(1)
        return [0.1 + 0.2, 1e-300, -3.0]

    key = {"detector": "any", "settings": {"steps": 3}}
    numbers = remembered(first, key, read)
    assert numbers == remembered(first, key, read) == [0.1 + 0.2, 1e-300, -3.0]
    assert len(calls) == 1
    remembered(second, key, read)
    remembered(first, {**key, "settings": {"steps": 4}}, read)
    assert len(calls) == 3
    for file in (zoo.path / "measured").iterdir():
        file.write_text("{")
    assert remembered(first, key, read) == numbers
    assert len(calls) == 4
    # Another model's numbers under this one's name.
    (written,) = (f for f in (zoo.path / "measured").iterdir() if f.read_text() != "{")
    content = json.loads(written.read_text())
    content["key"]["model"] = second.id
    written.write_text(json.dumps(content))
    remembered(first, key, read)
    assert len(calls) == 5


def test_a_zoo_that_can_not_be_written_to_keeps_nothing(zoo: Zoo) -> None:
    (zoo.path / "measured").write_text("in the way")
    assert remembered(zoo.entries[0], {}, lambda: [1.0]) == [1.0]
    assert remembered(zoo.entries[0], {}, lambda: [2.0]) == [2.0]


def test_a_fit_goes_on_where_it_was_stopped(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"steps": 2, "starts": 1, "members": 2, "models": 6}
    load, loaded = zoo_file.load, list[Path]()
    stops_at = 7

    def count(path: Path) -> zoo_file.ZooModel:
        if len(loaded) == stops_at:
            raise KeyboardInterrupt
        loaded.append(path)
        return load(path)

    monkeypatch.setattr(zoo_file, "load", count)
    with pytest.raises(KeyboardInterrupt):
        fit(zoo, "max_margin", **settings)
    stops_at = 99
    resumed = fit(zoo, "max_margin", **settings)
    assert len(loaded) == len(set(loaded)) == 12
    assert fit(zoo, "max_margin", **settings).to_bytes() == resumed.to_bytes()
    assert len(loaded) == 12
