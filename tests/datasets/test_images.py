from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from litmus.datasets import ImageDataset, Split
from litmus.datasets.images import cached
from litmus.errors import DataError
from litmus.models import InputSpec

Decoded = tuple[tuple[str, ...], Split, Split]


def split(labels: list[int], value: int = 0) -> Split:
    images = torch.full((len(labels), 1, 4, 4), value, dtype=torch.uint8)
    return Split(images=images, labels=torch.tensor(labels, dtype=torch.int64))


def decoder(
    train: list[int], test: list[int], *, value: int = 0
) -> tuple[Callable[[], Decoded], list[int]]:
    """A decoder of two classes, and the list of its calls."""
    calls: list[int] = []

    def decode() -> Decoded:
        calls.append(1)
        return ("a", "b"), split(train, value), split(test, value)

    return decode, calls


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LITMUS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(first: ImageDataset, second: ImageDataset) -> bool:
    pairs = [(first.train, second.train), (first.test, second.test)]
    return first.sha256 == second.sha256 and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs
    )


def test_a_split_is_indexed_by_position_or_mask() -> None:
    whole = Split(
        images=torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1), labels=torch.arange(4)
    )
    picked = whole[torch.tensor([3, 1])]
    assert picked.labels.tolist() == picked.images.flatten().tolist() == [3, 1]
    assert whole[whole.labels > 1].labels.tolist() == [2, 3]
    assert len(whole) == 4
    assert split([1, 0, 1]).of_class(1).tolist() == [0, 2]
    assert split([1, 0, 1]).of_class(7).tolist() == []


def test_mean_and_deviation_are_of_the_training_pixels(tiny_dataset: ImageDataset) -> None:
    pixels = tiny_dataset.train.images.transpose(0, 1).flatten(1).double() / 255
    for found, expected in (
        (tiny_dataset.mean, pixels.mean(dim=1)),
        (tiny_dataset.std, pixels.std(dim=1, correction=0)),
    ):
        assert found.shape == (3,)
        assert found.dtype == np.dtype(np.float32)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


def test_images_are_decoded_once(cache: Path) -> None:
    decode, calls = decoder([0, 1, 1], [0, 1], value=3)
    first, second = (cached("x", {"size": 4}, decode, "DIR") for _ in range(2))
    assert len(calls) == 1
    assert same(first, second)
    assert first.name == "x"
    assert first.class_names == ("a", "b")
    assert first.train.images.dtype == torch.uint8
    assert first.input_spec == InputSpec(channels=1, height=4, width=4, num_classes=2)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(("name", "key"), [("y", {"size": 4}), ("x", {"size": 5})])
def test_another_name_or_key_is_decoded_anew(cache: Path, name: str, key: object) -> None:
    decode, calls = decoder([0, 1], [0, 1])
    cached("x", {"size": 4}, decode, "DIR")
    cached(name, key, decode, "DIR")
    assert len(calls) == 2


@pytest.mark.parametrize("damage", [b"", b"x" * 50, None])
def test_a_damaged_cache_is_mended(cache: Path, damage: bytes | None) -> None:
    decode, calls = decoder([0, 1], [0, 1])
    first = cached("x", 0, decode, "DIR")
    path = next(cache.iterdir())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content if damage is None else damage)
    assert same(cached("x", 0, decode, "DIR"), first)
    assert len(calls) == 2


def test_the_digest_is_that_of_pixels_and_labels(cache: Path) -> None:
    digests = [
        cached("x", i, decoder(train, [0, 1], value=value)[0], "DIR").sha256
        for i, (train, value) in enumerate([([0, 1], 0), ([0, 1], 0), ([1, 0], 0), ([0, 1], 1)])
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([0, 0], [0, 1], r"a class has no images .*got images per class \[2, 0\]"),
        ([0, 1], [1], r"a class has no images .*got images per class \[0, 1\]"),
        ([0, 1], [], r"a class has no images .*got images per class \[0, 0\]"),
        ([0, 1], [0, 1, -1], r"a label has no class \(expected 0 to 1, got -1\)"),
        ([0, 1, 2], [0, 1], r"a label has no class \(expected 0 to 1, got 2\)"),
    ],
)
def test_every_class_needs_images_and_every_image_a_class(
    cache: Path, train: list[int], test: list[int], message: str
) -> None:
    with pytest.raises(DataError, match=f"DIR: {message}"):
        cached("x", 0, decoder(train, test)[0], "DIR")
    assert not cache.exists()
