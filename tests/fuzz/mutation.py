"""Mutations of bytes, JSON values and ONNX models, each a function of a `random.Random`."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from onnx import ModelProto, TensorProto, helper

__all__ = ["mutated_bytes", "mutated_json", "mutated_model"]

_INTEGERS: Final = (
    0,
    1,
    -1,
    7,
    127,
    255,
    2**15,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**63 - 1,
    -(2**63),
)


def mutated_bytes(random: Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Return the bytes after one to five changes; `others` are spliced in at times."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        change = random.choice(_CHANGES)
        change(random, data)
    if others and random.random() < 0.1:
        other = random.choice(others)
        data = data[: random.randint(0, len(data))] + other[random.randint(0, len(other)) :]
    return bytes(data)


def _place(random: Random, data: bytearray) -> int:
    """A place near the start as often as any other: that is where headers are."""
    end = min(len(data), 200) if random.random() < 0.5 else len(data)
    return random.randrange(end) if end else 0


def _flip(random: Random, data: bytearray) -> None:
    if data:
        data[_place(random, data)] ^= 1 << random.randrange(8)


def _replace(random: Random, data: bytearray) -> None:
    if data:
        data[_place(random, data)] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))


def _cut(random: Random, data: bytearray) -> None:
    place = _place(random, data)
    del data[place : place + random.choice((1, 2, 8, 100, len(data)))]


def _repeat(random: Random, data: bytearray) -> None:
    place = _place(random, data)
    piece = bytes(data[place : place + random.choice((1, 4, 30))])
    data[place:place] = piece * random.choice((1, 2, 1000))


def _insert(random: Random, data: bytearray) -> None:
    place = _place(random, data)
    data[place:place] = random.randbytes(random.choice((1, 4, 16)))


def _integer(random: Random, data: bytearray) -> None:
    """Another whole number, in one of the ways that files write them."""
    value = random.choice(_INTEGERS)
    for size, code in ((8, "<q"), (4, "<i"), (2, "<h")):
        if -(2 ** (8 * size - 1)) <= value < 2 ** (8 * size - 1):
            piece = struct.pack(code, value)
            break
    if random.random() < 0.3:
        piece = str(value).encode()
    place = _place(random, data)
    data[place : place + len(piece)] = piece


def _swap(random: Random, data: bytearray) -> None:
    a, b = _place(random, data), _place(random, data)
    length = random.choice((1, 4, 8, 32))
    if max(a, b) + length <= len(data):
        data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]


_CHANGES: Final[tuple[Callable[[Random, bytearray], None], ...]] = (
    _flip, _flip, _replace, _replace, _cut, _repeat, _insert, _integer, _swap
)  # fmt: skip


def mutated_json(random: Random, value: Any) -> Any:
    """Return a JSON value in which one to three parts are others, or missing."""
    for _ in range(random.randint(1, 3)):
        value = _changed(random, value)
    return value


def _changed(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice(list(value))
        changed = {**value, key: _changed(random, value[key])}
        if random.random() < 0.15:
            del changed[key]
        elif random.random() < 0.1:
            changed[random.choice(("", "x", key * 2))] = changed.pop(key)
        return changed
    if isinstance(value, list) and value and random.random() < 0.7:
        place = random.randrange(len(value))
        longer = random.choice(([], [value[place]], value))
        return [*value[:place], _changed(random, value[place]), *longer, *value[place + 1 :]]
    return random.choice(_STRANGE)(random)


def _deep(random: Random) -> Any:
    value: Any = []
    for _ in range(random.choice((3, 200))):
        value = random.choice(([value], {"a": value}))
    return value


_STRANGE: Final[tuple[Callable[[Random], Any], ...]] = (
    lambda random: None,
    lambda random: random.choice((True, False)),
    lambda random: random.choice(_INTEGERS),
    lambda random: random.choice((0.5, -0.0, 1e308, math.nan, math.inf, -math.inf, 10**400)),
    lambda random: random.choice(("", "x", "\x1b[2J\0\n", "9" * 50, "x" * 5000, "../..", "\ud800")),
    lambda random: random.choice(([], {}, [[]], {"": None}, [None] * 50)),
    _deep,
)


def mutated_model(random: Random, model: ModelProto) -> ModelProto:
    """Return a copy of an ONNX model with one to four changes to its graph."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for _ in range(random.randint(1, 4)):
        random.choice(_GRAPH_CHANGES)(random, copy.graph)
    if random.random() < 0.1:
        copy.opset_import[0].version = random.choice((1, 6, 12, 13, 28, 99))
    return copy


def _names(graph: Any) -> list[str]:
    values = [*graph.input, *graph.output, *graph.initializer]
    made = [name for node in graph.node for name in node.output]
    return [*(value.name for value in values), *made, "", "nowhere"]


def _rewire(random: Random, graph: Any) -> None:
    node = random.choice(graph.node)
    side = random.choice((node.input, node.output))
    if side:
        side[random.randrange(len(side))] = random.choice(_names(graph))


def _other_operator(random: Random, graph: Any) -> None:
    random.choice(graph.node).op_type = random.choice(_OPERATORS)


def _other_domain(random: Random, graph: Any) -> None:
    random.choice(graph.node).domain = random.choice(("ai.onnx", "ai.onnx.ml", "com.evil"))


def _fewer(random: Random, graph: Any) -> None:
    part = random.choice((graph.node, graph.input, graph.output, graph.initializer))
    if len(part) > 1 or (len(part) == 1 and random.random() < 0.2 and part is not graph.node):
        del part[random.randrange(len(part))]


def _more(random: Random, graph: Any) -> None:
    part = random.choice((graph.node, graph.input, graph.output, graph.initializer))
    if part:
        part.add().CopyFrom(random.choice(part))


def _attribute(random: Random, graph: Any) -> None:
    node = random.choice(graph.node)
    value: Any = random.choice((random.choice(_INTEGERS), 0.5, "x", [1, -1], [0, 2, 1, 3]))
    name = random.choice(("axis", "axes", "perm", "to", "keepdims", "alpha", "transB", "value"))
    node.attribute.append(helper.make_attribute(name, value))


def _sizes(random: Random, graph: Any) -> None:
    value = random.choice([*graph.input, *graph.output] or [None])
    if value is None:
        return
    shape = value.type.tensor_type.shape
    if shape.dim and random.random() < 0.7:
        shape.dim[random.randrange(len(shape.dim))].dim_value = random.choice(_INTEGERS)
    elif random.random() < 0.5:
        shape.dim.add().dim_value = random.choice(_INTEGERS)
    else:
        value.type.tensor_type.ClearField("shape")


def _tensor(random: Random, graph: Any) -> None:
    if not graph.initializer:
        return
    tensor = random.choice(graph.initializer)
    kind = random.randrange(5)
    if kind == 0 and tensor.dims:
        tensor.dims[random.randrange(len(tensor.dims))] = random.choice(_INTEGERS)
    elif kind == 1:
        tensor.raw_data = tensor.raw_data[: random.randint(0, len(tensor.raw_data))]
    elif kind == 2:
        tensor.data_type = random.choice((0, 1, 7, 8, 10, 14, 16, 17, 21, 99))
    elif kind == 3:
        tensor.float_data.append(random.random())
    else:
        tensor.data_location = TensorProto.EXTERNAL
        for key in ("location", "offset", "length"):
            value = random.choice(("../x", "/etc/passwd", "w", "-1", str(random.choice(_INTEGERS))))
            tensor.external_data.add(key=key, value=value)


def _kind(random: Random, graph: Any) -> None:
    value = random.choice([*graph.input, *graph.output] or [None])
    if value is not None:
        value.type.tensor_type.elem_type = random.choice((0, 1, 2, 8, 10, 11, 99))


_OPERATORS: Final = (
    "Softmax", "LogSoftmax", "Identity", "Flatten", "Reshape", "Gemm", "MatMul", "Conv", "Cast",
    "Transpose", "DequantizeLinear", "Constant", "ReduceMean", "GlobalAveragePool", "Loop", "If",
    "BatchNormalization", "Nonsense",
)  # fmt: skip
_GRAPH_CHANGES: Final = (
    _rewire, _rewire, _rewire, _other_operator, _other_domain, _fewer, _more, _attribute, _sizes,
    _tensor, _kind,
)  # fmt: skip
