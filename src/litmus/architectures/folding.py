"""BatchNorm folded into the convolution before it: the same function, fewer passes over memory."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["fold_batch_norm"]


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Fold, in place, every BatchNorm that follows a convolution in an `nn.Sequential`.

    A maximum pooling may stand between them if all of the BatchNorm's factors are positive, since
    the largest value then stays the largest. The module must be in evaluation mode, where
    BatchNorm is affine. Returns the module.
    """
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Sequential):
            setattr(module, name, _fold_sequence(child))
        else:
            fold_batch_norm(child)
    return _fold_sequence(module) if isinstance(module, nn.Sequential) else module


def _fold_sequence(sequence: nn.Sequential) -> nn.Sequential:
    folded: list[nn.Module] = []
    for layer in sequence:
        if not (isinstance(layer, nn.BatchNorm2d) and _fold_into(folded, layer)):
            folded.append(fold_batch_norm(layer))
    return nn.Sequential(*folded)


def _fold_into(layers: list[nn.Module], norm: nn.BatchNorm2d) -> bool:
    """Fold `norm` into the convolution at the end of `layers`, if there is one."""
    place = len(layers) - 1
    if layers and isinstance(layers[-1], nn.MaxPool2d) and bool((norm.weight > 0).all()):
        place -= 1
    before = layers[place] if place >= 0 else None
    if not isinstance(before, nn.Conv2d):
        return False
    layers[place] = fuse_conv_bn_eval(before, norm)
    return True
