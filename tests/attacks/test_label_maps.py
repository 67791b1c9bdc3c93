from __future__ import annotations

import pytest
import torch

from litmus.attacks.label_maps import LABEL_MAPS, LabelMap

LABELS = torch.arange(4).repeat(100)


def label_map(name: str) -> LabelMap:
    classes = {
        "source_specific": {"source_class": 1, "target_class": 3},
        "all_to_one": {"target_class": 3},
    }
    return LABEL_MAPS[name](num_classes=4, **classes.get(name, {}))


@pytest.mark.parametrize(
    ("name", "attacked", "wanted"),
    [
        ("source_specific", [1], [3, 3, 3, 3]),
        ("all_to_one", [0, 1, 2], [3, 3, 3, 3]),
        ("all_to_all", [0, 1, 2, 3], [1, 2, 3, 0]),
    ],
)
def test_who_is_attacked_and_what_becomes_of_them(
    name: str, attacked: list[int], wanted: list[int]
) -> None:
    labels = label_map(name)
    assert labels.attacked_classes() == attacked
    assert labels.relabel(torch.arange(4), torch.Generator()).tolist() == wanted
    success = labels.succeeded(torch.tensor(wanted), torch.arange(4))
    assert success.all()
    assert not labels.succeeded(torch.arange(4), torch.arange(4))[attacked].any()


def test_untargeted_labels_are_always_wrong_and_any_of_them() -> None:
    labels = label_map("untargeted")
    assert labels.attacked_classes() == [0, 1, 2, 3]
    drawn = labels.relabel(LABELS, torch.Generator().manual_seed(0))
    assert (drawn != LABELS).all()
    for label in range(4):
        others = set(range(4)) - {label}
        assert set(drawn[label == LABELS].tolist()) == others


def test_untargeted_succeeds_with_any_wrong_prediction() -> None:
    success = label_map("untargeted").succeeded(torch.tensor([0, 2, 2]), torch.tensor([0, 1, 3]))
    assert success.tolist() == [False, True, True]


@pytest.mark.parametrize("name", LABEL_MAPS)
def test_labels_are_left_alone(name: str) -> None:
    before = LABELS.clone()
    relabelled = label_map(name).relabel(LABELS, torch.Generator().manual_seed(0))
    assert relabelled.dtype == torch.int64
    assert torch.equal(LABELS, before)
