"""Detection by what the backdoors are: a dot with its interval for every value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from litmus.figures.drawing import COLOURS, SMALL, place, styled, svg, text_width

__all__ = ["figure_breakdown"]

Dot: TypeAlias = tuple[str, float, float, float, str]
"""A value's name, its AUC with both ends of the interval, and the numbers of models, as text."""

# Inches: a line of the figure, between properties, the dots' width, above and below them.
_LINE: Final = 0.19
_GAP: Final = 0.1
_WIDTH: Final = 3.4
_TOP: Final = 0.35
_AXIS: Final = 0.45
_MARKERS: Final = "os^vDP<>"
_SIZES: Final = "clean + backdoored"


@styled
def figure_breakdown(
    parts: Mapping[str, Mapping[str, Sequence[Dot]]], overall: Mapping[str, float], title: str
) -> str:
    """Draw each detector's AUC by the values of each property, one below the other.

    `parts` has a property's dots by detector, and every detector the same values in the same
    order; `overall` has each detector's AUC over all models, a dashed line.
    """
    blocks = {name: next(iter(dots.values())) for name, dots in parts.items()}
    every = [dot for block in blocks.values() for dot in block]
    left = 0.3 + max(text_width(text, 9) for text in [*blocks, *(dot[0] for dot in every)])
    right = 0.2 + max(text_width(text) for text in [_SIZES, *(dot[4] for dot in every)])
    line = _LINE * (0.6 + 0.4 * len(overall))
    tops = _tops(blocks, line)
    height = len(every) * line + len(blocks) * (_LINE + _GAP)
    legend = _LINE * len(overall) if len(overall) > 1 else 0.0
    figure = Figure(figsize=(left + _WIDTH + right, _TOP + height + _AXIS + legend))
    axis = place(figure, left, _TOP, _WIDTH, height)
    axis.set(ylim=(height, 0), xlabel="AUC", title=title)
    _name(axis, blocks, tops, line)
    for number, (detector, whole) in enumerate(overall.items()):
        axis.axvline(whole, color=COLOURS[number % len(COLOURS)], linestyle="--", linewidth=0.8)
        shift = 0.8 * line * ((number + 0.5) / len(overall) - 0.5)
        for name, dots in parts.items():
            for i, dot in enumerate(dots[detector]):
                _draw(axis, dot, tops[name] + i * line + shift, number)
    lowest = min(dot[2] for dots in parts.values() for row in dots.values() for dot in row)
    axis.set_xlim(min(0.45, lowest - 0.02), 1.02)
    axis.axvline(0.5, color="0.7", linewidth=0.8, linestyle=":")
    axis.grid(axis="x", color="0.93", linewidth=0.6)
    axis.set_axisbelow(True)
    if legend:
        handles = [axis.plot([], [], **_style(i), label=name)[0] for i, name in enumerate(overall)]
        figure.legend(handles=handles, loc="lower left", frameon=False, borderaxespad=0.1)
    return svg(figure)


def _tops(blocks: Mapping[str, Sequence[Dot]], line: float) -> dict[str, float]:
    """Where the middle of each property's first line is, in inches from the axes' top."""
    tops = {}
    top = 0.0
    for name, block in blocks.items():
        tops[name] = top + _LINE + line / 2
        top += _LINE + len(block) * line + _GAP
    return tops


def _name(
    axis: Axes, blocks: Mapping[str, Sequence[Dot]], tops: Mapping[str, float], line: float
) -> None:
    """Write properties and values on the left, numbers of models on the right."""
    ticks = {tops[name] + i * line: dot for name, b in blocks.items() for i, dot in enumerate(b)}
    axis.set_yticks(list(ticks), [dot[0] for dot in ticks.values()])
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    beside = axis.get_yaxis_transform()
    above = (line + _LINE) / 2
    for y, text in [
        (min(tops.values()) - above, _SIZES),
        *((y, dot[4]) for y, dot in ticks.items()),
    ]:
        axis.text(1.02, y, text, transform=beside, va="center", fontsize=SMALL)
    for name, top in tops.items():
        axis.text(
            -0.02, top - above, name, transform=beside, va="center", ha="right", weight="bold"
        )


def _draw(axis: Axes, dot: Dot, y: float, number: int) -> None:
    _, value, low, high, _ = dot
    axis.plot([value], [y], **_style(number))
    axis.hlines(y, low, high, color=COLOURS[number % len(COLOURS)], linewidth=0.9)


def _style(number: int) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "markersize": 4.5,
        "linestyle": "none",
    }
