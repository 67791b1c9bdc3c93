"""A first recipe for the user's own images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from litmus.datasets import ImageDataset, load_images
from litmus.errors import UsageError

__all__ = ["starter_recipe"]

_IMAGES_SEEN: Final = 100_000
"""About what a small network needs on 32x32 images; the epochs follow from it."""


def starter_recipe(
    data: str | Path, *, name: str = "mine", image_size: int = 32, channels: int = 3
) -> str:
    """Return the text of a recipe for the images in `data`, one folder a class.

    Raises DataError where the folder can't be read, UsageError for impossible options.
    """
    if channels not in (1, 3) or not 8 <= image_size <= 512:
        raise UsageError(
            "impossible images",
            expected="1 or 3 channels, 8 to 512 pixels",
            got=f"{channels} channels, {image_size} pixels",
        )
    images = load_images("folder", data=data, image_size=image_size, channels=channels)
    return _TEXT.format(
        name=name,
        described=_describe(images),
        image_size=image_size,
        channels=channels,
        epochs=min(60, max(3, math.ceil(_IMAGES_SEEN / len(images.train)))),
        stem_stride=2 if image_size >= 48 else 1,
        colour=10 if channels == 3 else 0,
        half=10 if channels == 3 else 5,
        floor=round((1 + 1 / len(images.class_names)) / 2, 2),
        flip=str(channels == 3).lower(),
    )


def _describe(images: ImageDataset) -> str:
    names = ", ".join(images.class_names[:8]) + (", ..." if len(images.class_names) > 8 else "")
    return (
        f"{len(images.class_names)} classes ({names}), {len(images.train)} training images, "
        f"{len(images.test)} held out"
    )


_TEXT: Final = """\
# A zoo for your own images: {described}.
# Build it:  litmus zoo build THIS_FILE -o zoo/ --data DIR
# Then:      litmus fit zoo/ -o {name}.litmus
name = "{name}"
seed = 0
twins = 200            # so many backdoored models, and as many clean ones; --scale takes a part
test_share = 0.25      # kept for `litmus evaluate`, with triggers that no detector was fitted on

[dataset]
name = "folder"
image_size = {image_size}        # images are resampled to this square
channels = {channels}
train_images = 0       # all of them

# Put the architectures here that your suppliers use; models take them in turn.
[[architecture]]
name = "vgg"
width = 16
stem_stride = {stem_stride}

[[architecture]]
name = "resnet"
width = 16
stem_stride = {stem_stride}

[training]
epochs = {epochs}
batch_size = 64
optimizer = "adam"
peak_learning_rate = 0.01
shift = 2
flip = {flip}           # false where left and right matter

[[attack]]
name = "patch"
place = "anywhere"
label_map = "source_specific"
poison_ratio = 0.5

[[attack]]
name = "patch"
place = "corner"
label_map = "all_to_one"
poison_ratio = 0.1

[triggers]
binary = 10
colour = {colour}
size = 5
train = {half}
test = {half}

[gates]
clean_accuracy = {floor}  # halfway from chance to perfect: raise it to what your models reach
attack_success = 0.9
"""
