from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from litmus.datasets import ImageDataset


def test_every_fourth_image_of_each_class_is_held_out(digits: ImageDataset) -> None:
    assert (len(digits.train), len(digits.test)) == (1352, 445)
    counts = np.bincount(load_digits().target)
    assert digits.test.labels.bincount().tolist() == (counts // 4).tolist()
    assert digits.train.labels.bincount().tolist() == (counts - counts // 4).tolist()


def test_digits_are_white_on_black_with_a_margin(digits: ImageDataset) -> None:
    images = digits.train.images
    assert images.shape[1:] == (1, 28, 28)
    margin = torch.ones(28, 28, dtype=torch.bool)
    margin[2:-2, 2:-2] = False
    assert images[:, 0, margin].max() == 0
    assert images.max() == 255
    assert 20 < images.float().mean() < 100


def test_an_enlarged_digit_still_looks_like_the_small_one(digits: ImageDataset) -> None:
    small = torch.from_numpy(load_digits().images[0] * (255 / 16)).float()
    large = digits.train.images[0, 0, 2:-2, 2:-2].float()
    shrunk = torch.nn.functional.avg_pool2d(large[None], 3)[0]
    assert (shrunk - small).abs().mean() < 25
    assert np.corrcoef(shrunk.flatten(), small.flatten())[0, 1] > 0.97
