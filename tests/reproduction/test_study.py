from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from litmus.errors import DataError, UsageError, ZooError
from litmus.reproduction import named_numbers, parse_scales
from litmus.zoo import Zoo
from tests.conftest import SMALL_RECIPE, Folders
from tests.reproduction.conftest import Open


@pytest.mark.parametrize(
    ("text", "scales"),
    [
        ("0.33", {"mnist": 0.33, "gtsrb": 0.33}),
        ("mnist=0.5", {"mnist": 0.5, "gtsrb": 1.0}),
        ("gtsrb=0.1, mnist=1", {"mnist": 1.0, "gtsrb": 0.1}),
    ],
)
def test_scales_are_one_for_all_or_by_name(text: str, scales: dict[str, float]) -> None:
    assert parse_scales(text, ["mnist", "gtsrb"]) == scales


@pytest.mark.parametrize("text", ["0", "1.5", "mnist=0", "mnist=x", "a,b", "mnist=0.1,0.2"])
def test_an_impossible_scale_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--scale"):
        parse_scales(text, ["mnist"])


def test_numbers_by_name() -> None:
    assert named_numbers("a=1,b=20", int, "--x") == {"a": 1, "b": 20}
    with pytest.raises(UsageError, match="--x"):
        named_numbers("a=1.5", int, "--x")


def test_a_whole_zoo_is_read_in_the_order_of_its_recipe(opened: Open, small_zoo: Zoo) -> None:
    study = opened()
    assert study.missing == {"small": 0}
    assert [e.id for e in study.zoos["small"].entries] == [e.id for e in small_zoo.entries]
    part = opened(scales={"small": 0.9})
    assert [e.id for e in part.zoos["small"].entries] == [e.id for e in small_zoo.entries][:36]


def test_models_to_come_are_known_beforehand(opened: Open, folders: Folders) -> None:
    there = opened().zoos["small"].entries
    there[3].path.unlink()
    study = opened()
    assert study.missing == {"small": 1}
    assert [e.id for e in study.zoos["small"].entries] == [e.id for e in there]
    shutil.rmtree(folders.zoos / "small")
    assert opened().missing == {"small": 40}
    assert opened(built=False).missing == {}
    assert not (folders.zoos / "small").exists()


def test_a_rejected_model_is_followed_by_its_next_attempt(opened: Open) -> None:
    entry = opened().zoos["small"].entries[0]
    spec = entry.spec
    for _ in range(3):
        (entry.path.parent / f"{spec.id}.rejected.json").write_text("{}")
        (entry.path.parent / f"{spec.id}.safetensors").unlink(missing_ok=True)
        spec = spec.next_attempt()
        ids = [e.id for e in opened().zoos["small"].entries]
        assert (spec.id in ids) is (spec.attempt < 3)
    assert len(ids) == 39  # given up


def test_what_cannot_be_had_is_left_out_or_an_error(
    opened: Open, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SMALL_RECIPE.replace('"digits"', '"mnist"')
    (folders.recipes / "other.toml").write_text(text)
    empty = tmp_path / "nothing"
    empty.mkdir()
    monkeypatch.setenv("LITMUS_DATA", str(empty))
    both = {"names": ["small", "other"], "scales": {"small": 1.0, "other": 1.0}}
    with pytest.raises(DataError):
        opened(**both)
    study = opened(**both, skip=True)
    assert study.names == ("small",)
    assert "mnist" in study.left_out["other"]
    with pytest.raises(ZooError, match="at least 10 twins"):
        opened(scales={"small": 0.5})
    assert opened(scales={"small": 0.5}, fitted=False).names == ("small",)
