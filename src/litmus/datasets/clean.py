"""Clean images for a detector, from whatever names them: a folder, or a known data set."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from litmus.datasets import DATASETS, folder, load_images
from litmus.datasets.hub import has_parquet_files, load_hub_dataset
from litmus.datasets.images import Split
from litmus.errors import DataError
from litmus.models import InputSpec

__all__ = ["load_clean_images", "load_named_images"]

_PER_CLASS: Final = 200
"""So many of a folder are decoded; a detector draws some dozens."""


def load_clean_images(source: str | Path, input_spec: InputSpec) -> Split:
    """Return images of the classes of `input_spec`: see `load_named_images`."""
    return load_named_images(source, input_spec)[1]


def load_named_images(
    source: str | Path, input_spec: InputSpec, *, per_class: int = _PER_CLASS
) -> tuple[tuple[str, ...], Split]:
    """Return names of the classes of `input_spec` and images of them, resampled to its size.

    `source` is a folder with one folder a class (`DIR/CLASS/*.png`, classes in sorted order), or
    with Parquet files as from the Hugging Face hub, or the name of a data set, whose test images
    are taken; of a folder at most `per_class` images a class. Raises DataError where there are
    none, or of another number of classes.
    """
    if input_spec.height != input_spec.width:
        raise DataError("images can be had for square inputs only", got=str(input_spec))
    path = Path(source)
    size, channels = input_spec.width, input_spec.channels
    if path.is_dir() and has_parquet_files(path):
        dataset = load_hub_dataset(
            "clean", hub_id="", image_size=size, channels=channels, data=path
        )
        names, split = dataset.class_names, dataset.test
    elif path.is_dir():
        names, split = folder.load_some(
            path, image_size=size, channels=channels, per_class=per_class
        )
    elif str(source) in DATASETS and str(source) != "folder":
        dataset = load_images(str(source))
        names, split = dataset.class_names, dataset.test
    else:
        known = ", ".join(name for name in DATASETS if name != "folder")
        expected = f"a folder with one folder a class, or one of {known}"
        raise DataError("no such images", expected=expected, got=source)
    classes = int(split.labels.max()) + 1
    if classes != input_spec.num_classes:
        raise DataError(
            "the images are of another number of classes than the model",
            expected=input_spec.num_classes,
            got=classes,
            where=source,
        )
    return names, split
