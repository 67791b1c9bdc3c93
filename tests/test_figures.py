from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from litmus.figures import (
    figure_breakdown,
    figure_patterns,
    figure_poison_ratios,
    figure_populations,
    figure_triggers,
    image_grid,
    labelled_images,
    patterns_by_member,
    roc_curves,
    roc_panels,
)

GREY = np.zeros((3, 1, 8, 8), dtype=np.uint8)
COLOUR = np.linspace(0, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


CURVE = (np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0]))
SIGNS = [f"sign {i}" for i in range(43)]
DIGITS = [str(i) for i in range(10)]


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def pictures(svg: str) -> int:
    return len(list(ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}image")))


def test_each_image_is_drawn_with_its_label() -> None:
    svg = labelled_images([("one", GREY[0]), ("two", COLOUR[0])], columns=1)
    assert texts(svg) == ["one", "two"]
    assert pictures(svg) == 2


def test_rows_may_differ_in_length_and_channels() -> None:
    svg = image_grid([("grey", GREY), ("colour", COLOUR)])
    assert pictures(svg) == 5
    assert texts(svg) == ["grey", "colour"]
    assert texts(patterns_by_member([COLOUR, COLOUR])) == ["member 0", "member 1"]


@pytest.mark.parametrize("labels", [["ulp"], ["ulp, M = 1", "noise"]])
def test_roc_curves_are_named(labels: list[str]) -> None:
    drawn = texts(roc_curves(dict.fromkeys(labels, CURVE), "title"))
    assert {*labels, "title", "false-positive rate"} <= set(drawn)


@pytest.mark.parametrize("names", [["mnist"], ["mnist", "cifar10", "gtsrb"]])
def test_roc_panels_share_one_legend(names: list[str]) -> None:
    labels = [f"ulp, M = {m}" for m in range(1, 9)]
    drawn = texts(roc_panels({name: dict.fromkeys(labels, CURVE) for name in names}))
    assert drawn.count("false-positive rate") == len(names)
    assert drawn.count("true-positive rate") == 1
    assert all(drawn.count(text) == 1 for text in [*names, *labels])


def test_a_label_has_one_colour_in_all_panels() -> None:
    svg = roc_panels({"mnist": {"noise": CURVE, "ulp": CURVE}, "gtsrb": {"ulp": CURVE}})
    curves_and_legend = {"#0072b2": 1 + 1, "#d55e00": 2 + 1}
    assert {colour: svg.count(f"stroke: {colour}") for colour in curves_and_legend} == (
        curves_and_legend
    )


def patterns_picture(channels: int, class_names: list[str], m: int = 10) -> str:
    generator = np.random.default_rng(0)
    answers = {
        label: -30 * generator.random((m, len(class_names)))
        for label in ("clean model", "backdoored model")
    }
    return figure_patterns(
        generator.random((m, channels, 8, 8)),
        answers,
        {"clean model": -3.2, "backdoored model": 4.0},
        class_names,
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("class_names", [DIGITS, SIGNS])
def test_patterns_stand_beside_answers_and_scores(channels: int, class_names: list[str]) -> None:
    svg = patterns_picture(channels, class_names)
    drawn = texts(svg)
    assert {"clean model: score -3.2", "backdoored model: score 4"} <= set(drawn)
    assert {"log-probability", *class_names} <= set(drawn)
    assert pictures(svg) == 10 + 2 + 1  # with the colour bar


def test_one_pattern_has_one_row() -> None:
    assert pictures(patterns_picture(1, DIGITS, m=1)) == 1 + 2 + 1


def test_long_names_of_classes_keep_both_ends() -> None:
    drawn = texts(patterns_picture(1, ["sign that says no entry to lorries", "stop"], m=1))
    assert {"sign that says…entry to lorries", "stop"} <= set(drawn)


def test_names_that_differ_only_within_are_numbered() -> None:
    names = [f"{'x' * 20}{i}{'y' * 20}" for i in range(2)]
    drawn = texts(patterns_picture(1, names, m=1))
    assert {f"{i}: {'x' * 14}…{'y' * 18}" for i in range(2)} <= set(drawn)


def test_of_very_many_classes_only_some_are_named() -> None:
    drawn = texts(patterns_picture(1, [f"sign {i}" for i in range(100)], m=1))
    assert 20 < sum(text.startswith("sign ") for text in drawn) < 80


def triggers_picture(channels: int, class_names: list[str]) -> str:
    image = np.zeros((channels, 5, 5), dtype=np.uint8)
    return figure_triggers(
        [(f"trigger {i}", image) for i in range(20)],
        class_names,
        np.linspace(0.9, 1, len(class_names)),
        source_class=3,
        target_class=7,
        examples=[("clean", image), ("triggered, taken for\nwhat it isn't", image)],
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("class_names", [DIGITS, SIGNS])
def test_triggers_stand_beside_accuracy_and_examples(channels: int, class_names: list[str]) -> None:
    svg = triggers_picture(channels, class_names)
    drawn = texts(svg)
    assert {f"trigger {i}" for i in range(20)} <= set(drawn)
    assert {"clean accuracy", "clean", *class_names} <= set(drawn)
    assert f"source class: {class_names[3]}" in drawn
    assert f"target class: {class_names[7]}" in drawn
    assert "what it isn't" in drawn
    assert pictures(svg) == 20 + 2


RATIOS = [0.5, 0.25, 0.12, 0.05, 0.01]


def points(svg: str, colour: str) -> int:
    """Count the markers of a colour, without the legend's."""
    return svg.count(f'style="fill: {colour}; stroke: {colour}') - 1


def ratios_picture(
    auc: float, gap: tuple[float | None, float | None, float | None] = (None, None, None)
) -> str:
    line = [(auc, auc - 0.05, auc + 0.02)] * 4
    return figure_poison_ratios(
        RATIOS, {"attack success": [(1.0, None, None)] * 5, "ulp": [*line, gap]}, "mnist"
    )


def test_poison_ratios_are_named_in_their_order() -> None:
    drawn = texts(ratios_picture(0.9))
    assert [text for text in drawn if "%" in text] == ["50 %", "25 %", "12 %", "5 %", "1 %"]
    assert {"attack success", "ulp", "mnist", "poison ratio"} <= set(drawn)


def test_a_missing_value_leaves_a_gap() -> None:
    assert "nan" not in ratios_picture(0.9).lower()
    whole = ratios_picture(0.9, (0.8, None, None))
    assert points(whole, "#d55e00") == points(ratios_picture(0.9), "#d55e00") + 1 == 5


@pytest.mark.parametrize(("auc", "lowest"), [(0.9, "0.5"), (0.52, "0.0")])
def test_the_axis_of_poison_ratios_shows_every_interval(auc: float, lowest: str) -> None:
    drawn = texts(ratios_picture(auc))
    assert min(text for text in drawn if text.startswith("0.")) == lowest


def breakdown_picture(*detectors: str, low: float = 0.8) -> str:
    sizes = [("1", 0.85, low, 0.9, "20 + 3"), ("3-4", 1.0, 0.95, 1.0, "20 + 7")]
    maps = [("all to one", 0.9, 0.85, 0.95, "20 + 10")]
    parts = {
        "trigger size": dict.fromkeys(detectors, sizes),
        "label map": dict.fromkeys(detectors, maps),
    }
    return figure_breakdown(parts, dict.fromkeys(detectors, 0.93), "mnist")


@pytest.mark.parametrize("detectors", [("ulp",), ("ulp", "fused", "noise")])
def test_a_breakdown_names_properties_values_and_numbers(detectors: tuple[str, ...]) -> None:
    svg = breakdown_picture(*detectors)
    drawn = texts(svg)
    for text in ("trigger size", "1", "3-4", "label map", "all to one", "20 + 7", "mnist", "AUC"):
        assert drawn.count(text) == 1
    legend = len(detectors) if len(detectors) > 1 else 0
    assert sum(name in drawn for name in detectors) == legend
    colours = ("#0072b2", "#d55e00", "#009e73")[: len(detectors)]
    dots = [svg.count(f'style="fill: {colour}; stroke: {colour}') for colour in colours]
    assert dots == [3 + bool(legend)] * len(detectors)


@pytest.mark.parametrize(("low", "first"), [(0.8, "0.5"), (0.21, "0.2")])
def test_the_axis_of_a_breakdown_shows_every_interval(low: float, first: str) -> None:
    drawn = texts(breakdown_picture("ulp", low=low))
    assert min(text for text in drawn if text.startswith("0.")) == first


def test_a_dollar_sign_is_no_formula() -> None:
    assert "a $x$" in texts(labelled_images([("a $x$", GREY[0])]))


def test_the_same_picture_is_the_same_text() -> None:
    assert image_grid([("grey", GREY)]) == image_grid([("grey", GREY)])
    assert patterns_picture(3, DIGITS) == patterns_picture(3, DIGITS)
    assert triggers_picture(3, DIGITS) == triggers_picture(3, DIGITS)
    assert ratios_picture(0.9) == ratios_picture(0.9)
    assert breakdown_picture("ulp") == breakdown_picture("ulp")
    assert roc_panels({"mnist": {"ulp": CURVE}}) == roc_panels({"mnist": {"ulp": CURVE}})


def test_populations_are_drawn_side_by_side() -> None:
    rows = {"a form": (np.array([0.1, 0.2]), np.array([0.9])), "another": (np.zeros(2), np.ones(1))}
    drawn = figure_populations(rows, "share", "what was found")
    assert drawn == figure_populations(rows, "share", "what was found")
    for word in ("a form", "another", "clean (n = 2)", "backdoored (n = 1)", "what was found"):
        assert word in drawn
