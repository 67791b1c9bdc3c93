"""What every attack promises, with every label map and at every place."""

from __future__ import annotations

import hashlib
import json
from typing import Any, get_args

import pytest
import torch

from litmus.attacks import ATTACKS, Attack, Treatment, Trigger, extra_images
from litmus.attacks.label_maps import LABEL_MAPS
from litmus.datasets import ImageDataset, Split
from litmus.errors import RecipeError
from litmus.schema import from_table, to_table

CLASSES: dict[str, dict[str, int]] = {
    "source_specific": {"source_class": 2, "target_class": 0},
    "all_to_one": {"target_class": 1},
    "all_to_all": {},
    "untargeted": {},
}
# The options of each attack, beside its label map.
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("patch", {"trigger": Trigger(index=0), "place": "corner"}),
    ("patch", {"trigger": Trigger(index=1), "place": "anywhere"}),
    ("patch", {"trigger": Trigger(kind="colour", index=0), "place": "surface"}),
    ("patch", {"trigger": Trigger(index=0), "place": "fixed", "row": -5, "column": -5}),
    ("patch", {"trigger": Trigger(kind="uniform", index=0, shape="disc"), "place": "fixed"}),
    ("patch", {"trigger": Trigger(kind="white", index=0), "alpha": 0.4, "place": "corner"}),
    ("patch", {"trigger": Trigger(index=2), "others": (Trigger(index=3), Trigger(index=4))}),
    ("blended", {"index": 0}),
    ("blended", {"index": 1, "pattern": "smooth"}),
    ("blended", {"index": 2, "pattern": "checker", "alpha": 0.4}),
    ("sinusoid", {"index": 0, "frequency": 3.0}),
    ("wanet", {"index": 0}),
    ("pixels", {"index": 0}),
    ("pixels", {"index": 1, "count": 16}),
]
every_attack = pytest.mark.parametrize(
    ("name", "options"), OPTIONS, ids=[f"{n}-{i}" for i, (n, _) in enumerate(OPTIONS)]
)
every_label_map = pytest.mark.parametrize("label_map", LABEL_MAPS)


def make(name: str, options: dict[str, Any], label_map: str, ratio: float = 0.5) -> Attack:
    return ATTACKS[name](
        num_classes=3,
        label_map=label_map,  # type: ignore[arg-type]
        poison_ratio=ratio,
        **CLASSES[label_map],
        **options,
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows_of(part: torch.Tensor, whole: torch.Tensor) -> list[int]:
    """Where each image of `part` is in `whole`."""
    same = (part[:, None] == whole[None]).flatten(2).all(dim=2)
    assert (same.sum(dim=1) == 1).all()
    return same.int().argmax(dim=1).tolist()


def test_every_attack_and_label_map_is_covered() -> None:
    assert {name for name, _ in OPTIONS} == set(ATTACKS)
    assert set(CLASSES) == set(LABEL_MAPS)


@every_attack
@every_label_map
def test_stamp_leaves_its_input_alone_and_obeys_its_generator(
    tiny_dataset: ImageDataset, name: str, options: dict[str, Any], label_map: str
) -> None:
    attack = make(name, options, label_map)
    images = tiny_dataset.train.images
    before, state = images.clone(), torch.get_rng_state()
    stamped = attack.stamp(images, seeded())
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert stamped.shape == images.shape
    assert stamped.dtype == torch.uint8
    assert (stamped != images).flatten(1).any(dim=1).all()
    assert torch.equal(stamped, attack.stamp(images, seeded()))


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=seeded(), dtype=torch.uint8)


@every_attack
@pytest.mark.parametrize("shape", [(9, 1, 28, 28), (9, 3, 32, 20), (9, 3, 11, 43), (0, 1, 28, 28)])
def test_images_of_any_shape_are_stamped(
    name: str, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    images = random_images(*shape)
    before = images.clone()
    if shape[1] == 1 and name == "patch" and options["trigger"].kind == "colour":
        return
    stamped = make(name, options, "all_to_all").stamp(images, seeded())
    assert torch.equal(images, before)
    assert stamped.shape == shape
    assert stamped.dtype == torch.uint8
    assert (stamped != images).flatten(1).any(dim=1).all()
    assert stamped.is_contiguous()


DRAWN = [(name, options) for name, options in OPTIONS if "index" in options]


@pytest.mark.parametrize(("name", "options"), DRAWN)
def test_drawn_attacks_do_the_same_to_every_image(name: str, options: dict[str, Any]) -> None:
    attack, generator = make(name, options, "all_to_all"), seeded()
    images = random_images(7, 1, 28, 28).repeat(300, 1, 1, 1)  # more than one batch
    stamped = attack.stamp(images, generator)
    assert torch.equal(generator.get_state(), seeded().get_state())
    assert torch.equal(stamped, attack.stamp(images[:7], seeded(1)).repeat(300, 1, 1, 1))
    assert torch.equal(stamped[:1], attack.stamp(images[:1], seeded()))


@pytest.mark.parametrize(("name", "options"), DRAWN)
@pytest.mark.parametrize("channels", [1, 3])
def test_index_and_seed_draw_another_trigger(
    name: str, options: dict[str, Any], channels: int
) -> None:
    images = torch.full((1, channels, 28, 28), 100, dtype=torch.uint8)
    images[..., 1::3] = 30
    attacks = [
        make(name, {**options, "index": index, "seed": seed}, "all_to_all")
        for index in range(10)
        for seed in (0, 1)
    ]
    assert len({attack.stamp(images, seeded()).numpy().tobytes() for attack in attacks}) == 20
    assert len({attack.trigger_id for attack in attacks}) == 20


def test_trigger_ids_tell_all_of_these_apart() -> None:
    attacks = [make(name, options, "all_to_all") for name, options in OPTIONS]
    # The place is not part of the trigger, and the fourth patch has the first one's.
    assert len({attack.trigger_id for attack in attacks}) == len(OPTIONS) - 1


@pytest.mark.parametrize(
    ("name", "options", "trigger_id"),
    [
        ("blended", {"index": 3}, "blended-noise-3"),
        ("blended", {"index": 3, "seed": 2, "pattern": "smooth"}, "blended-smooth-3-set2"),
        ("blended", {"index": 3, "alpha": 0.05}, "blended-noise-3-a0.05"),
        ("sinusoid", {"index": 3}, "sinusoid-3"),
        ("sinusoid", {"index": 0, "delta": 30.0, "frequency": 2.5}, "sinusoid-0-d30-f2.5"),
        ("wanet", {"index": 3}, "wanet-3"),
        ("wanet", {"index": 3, "grid": 8, "strength": 0.75, "seed": 1}, "wanet-3-k8-s0.75-set1"),
        ("pixels", {"index": 3}, "pixels-3"),
        ("pixels", {"index": 3, "count": 4}, "pixels-3-n4"),
    ],
)
def test_drawn_attacks_are_named_by_index_and_options(
    name: str, options: dict[str, Any], trigger_id: str
) -> None:
    assert make(name, options, "all_to_all").trigger_id == trigger_id


DIGESTS = {
    "blended-noise-0": "7852a75e8c4dfddf",
    "blended-smooth-1": "ac0b78c23c350d76",
    "blended-checker-2-a0.4": "92de045782585bb2",
    "sinusoid-0-f3": "8e9991a1364e0dfc",
    "wanet-0": "ac88b17c134f52ef",
    "pixels-0": "3c4b87ec5ff7999e",
    "pixels-1-n16": "3b095d7212a7e7af",
}


@pytest.mark.parametrize(("name", "options"), DRAWN)
def test_drawn_triggers_never_change(name: str, options: dict[str, Any]) -> None:
    """Zoos are built of them; images in which rounding hangs by a thread are none of these."""
    attack = make(name, options, "all_to_all")
    ramp = (torch.arange(28) * 9 + torch.arange(28)[:, None] // 4).to(torch.uint8)
    stamped = attack.stamp(ramp.expand(1, 3, 28, 28), seeded())
    digest = hashlib.sha256(stamped.numpy().tobytes()).hexdigest()[:16]
    assert digest == DIGESTS[attack.trigger_id]


@every_attack
@every_label_map
def test_an_attack_crosses_a_table(name: str, options: dict[str, Any], label_map: str) -> None:
    attack = make(name, options, label_map)
    table = json.loads(json.dumps(to_table(attack)))
    assert from_table(ATTACKS[name], table, "attack") == attack
    assert None not in table.values()


@every_attack
@every_label_map
@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.29, 0.05])
def test_poison_adds_its_share_of_each_attacked_class(
    tiny_dataset: ImageDataset, name: str, options: dict[str, Any], label_map: str, ratio: float
) -> None:
    attack, clean = make(name, options, label_map, ratio), tiny_dataset.train
    poisoned = attack.poison(clean, seeded())
    assert torch.equal(poisoned.images[: len(clean)], clean.images)
    assert torch.equal(poisoned.labels[: len(clean)], clean.labels)
    # The control with the same generator has the same images, before they are stamped.
    copies = extra_images(clean, attack, "control_copies", seeded())
    assert len(set(rows_of(copies.images, clean.images))) == len(copies)
    counts = copies.labels.bincount(minlength=3).tolist()
    attacked = attack.labels.attacked_classes()
    assert counts == [round(ratio * 20) if label in attacked else 0 for label in range(3)]
    new_labels = poisoned.labels[len(clean) :]
    assert len(new_labels) == len(copies)
    assert (new_labels != copies.labels).all()
    assert attack.labels.succeeded(new_labels, copies.labels).all()


@every_attack
@every_label_map
def test_treatments_pick_the_same_images(
    tiny_dataset: ImageDataset, name: str, options: dict[str, Any], label_map: str
) -> None:
    attack = make(name, options, label_map)
    extra: dict[Treatment, Split] = {
        treatment: extra_images(tiny_dataset.train, attack, treatment, seeded(3))
        for treatment in get_args(Treatment)
    }
    bad, copies, kept = (extra[t] for t in ("backdoored", "control_copies", "control_kept_label"))
    assert torch.equal(kept.labels, copies.labels)
    assert torch.equal(kept.images, bad.images)
    assert (bad.images != copies.images).flatten(1).any(dim=1).all()
    rows_of(copies.images, tiny_dataset.train.images)


@every_label_map
def test_victims_are_all_images_of_the_attacked_classes(
    tiny_dataset: ImageDataset, label_map: str
) -> None:
    attack = make(*OPTIONS[0], label_map)
    victims = attack.victims(tiny_dataset.test)
    attacked = torch.tensor(attack.labels.attacked_classes())
    expected = torch.isin(tiny_dataset.test.labels, attacked).nonzero().flatten()
    assert torch.equal(victims.sort().values, expected)


@pytest.mark.parametrize("treatment", get_args(Treatment))
@pytest.mark.parametrize("images", [60, 0])
def test_a_ratio_too_small_for_any_image_is_an_error(
    tiny_dataset: ImageDataset, treatment: Treatment, images: int
) -> None:
    attack = make(*OPTIONS[0], "source_specific", 0.02)
    few = tiny_dataset.train[torch.arange(images)]
    with pytest.raises(RecipeError, match=f"got poison_ratio 0.02 of {images} images"):
        extra_images(few, attack, treatment, seeded())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_map": "source_specific", "target_class": 1}, "needs source_class"),
        ({"label_map": "source_specific", "source_class": 1}, "needs target_class"),
        ({"label_map": "all_to_one"}, "needs target_class"),
        ({"label_map": "all_to_one", "target_class": 1, "source_class": 0}, "has no source_class"),
        ({"label_map": "all_to_all", "target_class": 1}, "has no target_class"),
        ({"label_map": "untargeted", "source_class": 1}, "has no source_class"),
        ({"source_class": 1, "target_class": 1}, "are both 1"),
        ({"source_class": 3, "target_class": 1}, "source_class 3 is not below num_classes 3"),
        ({"source_class": 0, "target_class": 9}, "target_class 9 is not below num_classes 3"),
        ({"source_class": -1, "target_class": 1}, "greater than or equal to 0"),
        ({"source_class": 0, "target_class": 1, "num_classes": 1}, "greater than or equal to 2"),
        ({"source_class": 0, "target_class": 1, "poison_ratio": 0.0}, "greater than 0"),
        ({"source_class": 0, "target_class": 1, "poison_ratio": 1.1}, "less than or equal to 1"),
        ({"source_class": 0, "target_class": 1, "opacity": 1}, "Unexpected keyword"),
    ],
)
@pytest.mark.parametrize("name", ATTACKS)
def test_impossible_attacks_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    own = next(o for n, o in OPTIONS if n == name)
    with pytest.raises(ValueError, match=message):
        ATTACKS[name](**{"num_classes": 3, **own, **options})
