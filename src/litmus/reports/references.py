"""What reference images found out, as text, JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from litmus.evaluation import ReferenceEvaluation
from litmus.reports.console import render_table
from litmus.reports.evaluation import markdown_table

__all__ = ["REFERENCE_REPORTS"]

_NOTHING: Final = "nothing fits"


def references_text(result: ReferenceEvaluation, provenance: Mapping[str, Any]) -> str:
    """Return tables and a summary, for a terminal."""
    tables = (_confusion(result), _by_architecture(result))
    return (
        "\n".join(render_table(table[0], table[1:]) for table in tables) + "\n" + _summary(result)
    )


def references_markdown(result: ReferenceEvaluation, provenance: Mapping[str, Any]) -> str:
    """Return the same in Markdown, with the command."""
    tables = (_confusion(result), _by_architecture(result))
    joined = "\n".join(markdown_table(table) for table in tables)
    return f"{joined}\n{_summary(result)}\n`{provenance['command']}`\n"


def references_json(result: ReferenceEvaluation, provenance: Mapping[str, Any]) -> str:
    """Return provenance, and as rows the whole, each input and each architecture, as JSON."""
    rows = [{"wants": name, **_shares(result, wants=name)} for name in result.alike]
    rows += [
        {"architecture": name, **_shares(result, architecture=name)} for name in _families(result)
    ]
    content = {
        **provenance,
        "dataset": result.dataset,
        "rows": [_shares(result), *rows],
        "found": {name: _found(result, name) for name in result.alike},
        "floors": dict(result.floors),
        "others": dict(result.others),
    }
    return json.dumps(content, indent=1) + "\n"


REFERENCE_REPORTS: Final[Mapping[str, Callable[[ReferenceEvaluation, Mapping[str, Any]], str]]] = {
    "text": references_text,
    "json": references_json,
    "markdown": references_markdown,
}


def _shares(result: ReferenceEvaluation, **chosen: object) -> dict[str, float | None]:
    return {
        "found": result.share("found", **chosen),
        "found_exactly": result.share("exactly", **chosen),
        "refused_clean": result.share("refused", backdoored=False, **chosen),
        "refused_backdoored": result.share("refused", backdoored=True, **chosen),
        "order_found": result.share("order_found", reordered=True, **chosen),
        "order_kept": result.share("order_found", reordered=False, **chosen),
    }


def _found(result: ReferenceEvaluation, wants: str) -> dict[str, int]:
    """How often what was found for models that want this input."""
    found = [model.found or _NOTHING for model in result.models if model.wants == wants]
    return {name: found.count(name) for name in (*result.alike, _NOTHING)}


def _families(result: ReferenceEvaluation) -> list[str]:
    return sorted({model.entry.architecture for model in result.models})


def _confusion(result: ReferenceEvaluation) -> list[list[str]]:
    header = ["the model wants", *result.alike, _NOTHING]
    return [
        header,
        *([name, *map(str, _found(result, name).values())] for name in result.alike),
    ]


def _by_architecture(result: ReferenceEvaluation) -> list[list[str]]:
    header = [
        "architecture", "input found", "refused clean / backdoored", "other order found",
        "own order kept", "cases",
    ]  # fmt: skip
    rows = []
    for name in _families(result):
        shares = _shares(result, architecture=name)
        rows.append(
            [
                name,
                _or_dash(shares["found"]),
                f"{_or_dash(shares['refused_clean'])} / {_or_dash(shares['refused_backdoored'])}",
                _or_dash(shares["order_found"]),
                _or_dash(shares["order_kept"]),
                str(sum(model.entry.architecture == name for model in result.models)),
            ]
        )
    return [header, *rows]


def _summary(result: ReferenceEvaluation) -> str:
    shares = _shares(result)
    text = (
        f"{len(result.models)} cases: {len({m.entry.id for m in result.models})} models, each as "
        "one that wants several inputs, by references that were learned without its group. Input "
        f"found {_or_dash(shares['found'])} (exactly that one {_or_dash(shares['found_exactly'])}; "
        f"of clean models {_or_dash(result.share('found', backdoored=False))}, of backdoored ones "
        f"{_or_dash(result.share('found', backdoored=True))}). Refused: "
        f"{_or_dash(shares['refused_clean'])} of clean, {_or_dash(shares['refused_backdoored'])} "
        f"of backdoored. Another order of classes found {_or_dash(shares['order_found'])}, the "
        f"zoo's own kept {_or_dash(shares['order_kept'])}, of those not refused.\n"
    )
    if result.others:
        refused = sum(result.others.values()) / len(result.others)
        text += f"Of {len(result.others)} models for other classes, refused: {refused:.3f}.\n"
    return text


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
