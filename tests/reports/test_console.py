from __future__ import annotations

import pytest

from litmus.reports.console import render_table
from litmus.scanning.results import printable


@pytest.mark.parametrize("name", ["[/x].onnx", "[bold]a[blink].onnx", ":smile:.onnx", "plain.onnx"])
def test_a_file_name_is_never_markup(name: str) -> None:
    assert name in render_table(["model"], [[name]])


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("\x1b[31mred\n.onnx") == "?[31mred?.onnx"
    assert "\x1b" not in render_table(["model"], [["\x1b[31mred.onnx"]])
