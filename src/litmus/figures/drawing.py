"""What all pictures share: style, sizes in inches, images and the names of classes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from numpy.typing import NDArray

__all__ = [
    "COLOURS",
    "SMALL",
    "bare",
    "class_labels",
    "enlarge",
    "name_classes",
    "names_height",
    "place",
    "show",
    "styled",
    "svg",
    "text_width",
]

_STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "litmus",  # the same picture is the same text
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a dollar sign in a class name is a dollar sign
}
# Okabe and Ito's colours, which colour-blind readers can tell apart, with Tol's wine for their
# yellow, which fades on white.
COLOURS: Final = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#882255",
)
SMALL: Final = 7.5  # points: names of classes and numbers of images
_HEAD, _TAIL = 14, 18  # characters that are kept of a long name
_PIXELS: Final = 160  # along an image's or a heat map's side

styled = mpl.rc_context(_STYLE)  # decorates each function that draws


def svg(figure: Figure) -> str:
    """Return the figure as SVG text; call it inside what `styled` decorates."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at `left`, `top` from the figure's upper left corner, all in inches."""
    whole_width, whole_height = figure.get_size_inches()
    return figure.add_axes(
        (
            left / whole_width,
            1 - (top + height) / whole_height,
            width / whole_width,
            height / whole_height,
        )
    )


def heading(figure: Figure, left: float, text: str) -> None:
    """Write a line at the figure's upper edge, `left` inches from its side."""
    figure.text(left / figure.get_figwidth(), 1 - 0.2 / figure.get_figheight(), text)


def labelled(
    figure: Figure, left: float, top: float, size: float, image: NDArray[Any], label: str
) -> None:
    """Draw an image (c, h, w), `size` inches wide and high, with its label below."""
    axis = place(figure, left, top, size, size)
    show(axis, image)
    axis.set_xlabel(label, fontsize=SMALL, labelpad=2)


def bare(axis: Axes) -> None:
    """Take ticks and frame away."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def show(axis: Axes, image: NDArray[Any]) -> None:
    """Draw one image (c, h, w), uint8 or floats in [0, 1], in a thin frame without ticks."""
    pixels = np.asarray(image)
    unit = pixels / 255 if pixels.dtype == np.uint8 else pixels
    picture = unit[0] if len(unit) == 1 else unit.transpose(1, 2, 0)
    axis.imshow(enlarge(picture), cmap="gray", vmin=0, vmax=1, interpolation="none")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(visible=True, color="0.8", linewidth=0.5)


def enlarge(values: NDArray[Any]) -> NDArray[Any]:
    """Repeat pixels (h, w, ...), so that a viewer that smooths images leaves them square.

    Draw them with `interpolation="none"`, which embeds them as they are; "nearest" would resample
    them to 72 dpi.
    """
    rows, columns = (-(-_PIXELS // side) for side in values.shape[:2])
    return values.repeat(rows, axis=0).repeat(columns, axis=1)


def text_width(text: str, size: float = SMALL) -> float:
    """Return the width of a line of text in inches; `size` is in points."""
    return float(TextPath((0, 0), text, size=size).get_extents().width) / 72 if text else 0.0


def class_labels(class_names: Sequence[str]) -> list[str]:
    """Shorten long names in the middle, since many differ in the end only.

    Where that makes two of them equal, each gets its class's number.
    """
    short = [_shorten(name) for name in class_names]
    if len(set(short)) == len(short):
        return short
    return [f"{i}: {name}" for i, name in enumerate(short)]


def _shorten(name: str) -> str:
    """Keep whole words of both ends where there are any."""
    if len(name) <= _HEAD + 1 + _TAIL:
        return name
    head = name[: _HEAD + 1].rpartition(" ")[0] or name[:_HEAD]
    tail = name[-_TAIL - 1 :].partition(" ")[2] or name[-_TAIL:]
    return f"{head}…{tail}"


def names_height(labels: Sequence[str], width: float) -> float:
    """Return the inches that `name_classes` needs below axes `width` inches wide."""
    return 0.1 + (SMALL / 72 if _lie_flat(labels, width) else max(map(text_width, labels)))


def name_classes(axis: Axes, labels: Sequence[str], width: float) -> None:
    """Name the classes 0, 1, ... below axes `width` inches wide.

    Names lie flat if there is room, else they stand; of very many every n-th is printed.
    """
    flat = _lie_flat(labels, width)
    step = 1 if flat else int(np.ceil(1.25 * SMALL / 72 * len(labels) / width))
    kept = range(0, len(labels), step)
    axis.set_xticks(kept, [labels[i] for i in kept], rotation=0 if flat else 90, fontsize=SMALL)
    axis.tick_params(axis="x", length=2, pad=2)


def _lie_flat(labels: Sequence[str], width: float) -> bool:
    return max(map(text_width, labels)) + 0.06 <= width / len(labels)
