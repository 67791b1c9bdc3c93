"""What a third-party file's network does to pixels before its first layer: flags and sidecars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from litmus.errors import LitmusError, ModelError, UsageError
from litmus.models import Images

__all__ = ["INPUT_KEYS", "KEYS", "Preprocessing", "sidecar_of"]

Layout = Literal["nchw", "nhwc"]

KEYS: Final = ("scale", "mean", "std", "layout", "channels", "outputs", "classes")
INPUT_KEYS: Final = ("scale", "mean", "std", "channels")
"""Those that say what becomes of a pixel."""

_FLAGS: Final = "flags"

# A sidecar is a handful of lines; class names of ImageNet take 30 kB.
_MAX_SIDECAR_BYTES: Final = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a model's input comes from an image in [0, 1]: ``(image * scale - mean) / std``.

    `scale` is 255 for a network that eats raw bytes. `mean` and `std` are in the units after
    scaling, one number or one a channel, in the order of the model's own channels (after `bgr`
    has swapped them). `layout` None is read from the input's shape. `outputs` says what the
    network returns where its graph does not. `origin` tells which keys were stated, and where;
    the others are assumed.
    """

    scale: float = 1.0
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    layout: Layout | None = None
    channels: Literal["rgb", "bgr"] = "rgb"
    outputs: Literal["auto", "logits", "probabilities"] = "auto"
    classes: tuple[str, ...] | None = None
    origin: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def from_table(
        cls,
        table: Mapping[str, Any],
        prefix: str,
        *,
        error: type[LitmusError] = ModelError,
        origin: Mapping[str, str] | None = None,
    ) -> Preprocessing:
        """Check a table of `KEYS`; raises `error` naming `prefix` and key, expected and got."""
        values = {}
        for key, value in table.items():
            place = f"{prefix}{key}"
            if key not in KEYS:
                raise error("unknown key", expected=f"one of {', '.join(KEYS)}", where=place)
            expected, convert = _RULES[key]
            try:
                values[key] = convert(value)
            except (ValueError, TypeError, OverflowError) as fault:
                raise error(
                    "wrong value", expected=expected, got=repr(value), where=place
                ) from fault
        return cls(**values, origin=origin or dict.fromkeys(values, _FLAGS))

    @classmethod
    def from_options(cls, **options: Any) -> Preprocessing:
        """Check flags, of which those that are None were not given; raises UsageError."""
        given = {key: value for key, value in options.items() if value is not None}
        return cls.from_table(given, "--", error=UsageError)

    @classmethod
    def for_model(cls, path: Path, stated: Mapping[str, Any]) -> Preprocessing:
        """Return what holds for a model's file: `stated` keys first, then its sidecar's.

        Raises ModelError where the sidecar is malformed.
        """
        sidecar = sidecar_of(path)
        table = _read_toml(sidecar) if sidecar.is_file() else {}
        cls.from_table(table, f"{sidecar}: ")
        origin = dict.fromkeys(table, sidecar.name) | dict.fromkeys(stated, _FLAGS)
        return cls.from_table({**table, **stated}, f"{path}: ", origin=origin)

    def table(self) -> dict[str, Any]:
        """Return the keys that were stated or differ from the defaults, ready for JSON."""
        default = {f.name: None if f.default is MISSING else f.default for f in fields(self)}
        keys = [k for k in KEYS if k in self.origin or getattr(self, k) != default[k]]
        return {key: getattr(self, key) for key in keys}

    def check(self, num_channels: int, where: object) -> None:
        """Raise ModelError unless this fits a model with so many channels."""
        for key in ("mean", "std"):
            value = getattr(self, key)
            if isinstance(value, tuple) and len(value) not in (1, num_channels):
                raise ModelError(
                    f"{key} does not fit the model's channels",
                    expected=f"1 or {num_channels} numbers",
                    got=len(value),
                    where=where,
                )
        if self.channels == "bgr" and num_channels != 3:
            raise ModelError(
                "channels bgr needs three channels", expected=3, got=num_channels, where=where
            )

    def class_names(self, num_classes: int, where: object) -> tuple[str, ...]:
        """Return the stated classes, none if none; raises ModelError for another number of them."""
        names = self.classes or ()
        if names and len(names) != num_classes:
            raise ModelError(
                "the stated classes do not fit the model",
                expected=num_classes,
                got=len(names),
                where=where,
            )
        return names

    def apply(self, images: Images) -> Images:
        """Return ``(image * scale - mean) / std`` of images (n, c, h, w), float32, same shape."""
        values = images[:, ::-1] if self.channels == "bgr" else images
        mean, std = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (self.mean, self.std))
        # Compared first, so that images that are fed as they are stay bit-identical.
        if self.scale != 1:
            values = values * np.float32(self.scale)
        if mean.any():
            values = values - mean
        if (std != 1).any():
            values = values / std
        return np.ascontiguousarray(values, dtype=np.float32)

    def undo(self, values: Images) -> Images:
        """Return the images that `apply` makes these values of; they need not lie in [0, 1]."""
        mean, std = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (self.mean, self.std))
        images = (values * std + mean) / np.float32(self.scale)
        ordered = images[:, ::-1] if self.channels == "bgr" else images
        return np.ascontiguousarray(ordered, dtype=np.float32)

    def notes(self, num_channels: int) -> list[str]:
        """Return what was assumed and what was stated, for the report."""
        keys = ["scale", "mean", "std", *(["channels"] if num_channels == 3 else [])]
        assumed = [f"{key} {_text(getattr(self, key))}" for key in keys if key not in self.origin]
        lines = [f"assumed: {', '.join(assumed)}"] if assumed else []
        for origin in dict.fromkeys(self.origin.values()):
            stated = [k for k in KEYS if self.origin.get(k) == origin]
            parts = [f"{k} {_text(getattr(self, k))}" for k in stated]
            lines.append(f"from {origin}: {', '.join(parts)}")
        return lines


def sidecar_of(path: Path) -> Path:
    """Return where the sidecar of `NAME.onnx` would be: `NAME.litmus.toml`."""
    return path.with_name(f"{path.stem}.litmus.toml")


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib  # only a file with a sidecar pays for it

    try:
        with path.open("rb") as file:
            data = file.read(_MAX_SIDECAR_BYTES + 1)
        if len(data) > _MAX_SIDECAR_BYTES:
            raise ModelError("too large", expected=f"{_MAX_SIDECAR_BYTES} bytes", where=path)
        return tomllib.loads(data.decode())
    except OSError as fault:
        raise ModelError(f"can't be read: {fault.strerror}", where=path) from fault
    except (ValueError, RecursionError) as fault:
        raise ModelError("not valid TOML", got=str(fault)[:200], where=path) from fault


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        shown = [_text(item) for item in value[:8]]
        return f"[{', '.join([*shown, '...'] if len(value) > 8 else shown)}]"
    return str(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    if not math.isfinite(value):
        raise ValueError(value)
    return float(value)


def _positive(value: Any) -> float:
    number = _number(value)
    if number <= 0:
        raise ValueError(value)
    return number


def _one_or_more(convert: Callable[[Any], float]) -> Callable[[Any], float | tuple[float, ...]]:
    def numbers(value: Any) -> float | tuple[float, ...]:
        if not isinstance(value, list | tuple):
            return convert(value)
        if not value:
            raise ValueError(value)
        return tuple(convert(item) for item in value)

    return numbers


def _choice(*names: str) -> Callable[[Any], Any]:
    def choice(value: Any) -> Any:
        if value not in names:
            raise ValueError(value)
        return value

    return choice


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise TypeError(value)
    if not all(isinstance(item, str) for item in value):
        raise TypeError(value)
    return tuple(value)


_RULES: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "scale": ("a number above 0", _positive),
    "mean": ("a number, or one a channel", _one_or_more(_number)),
    "std": ("a number above 0, or one a channel", _one_or_more(_positive)),
    "layout": ("'nchw' or 'nhwc'", _choice("nchw", "nhwc")),
    "channels": ("'rgb' or 'bgr'", _choice("rgb", "bgr")),
    "outputs": ("'auto', 'logits' or 'probabilities'", _choice("auto", "logits", "probabilities")),
    "classes": ("a list of names", _names),
}
