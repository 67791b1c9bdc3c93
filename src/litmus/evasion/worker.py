"""The processes that fine-tune models; see `litmus.zoo.worker`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litmus.detectors import load_detector
from litmus.evasion.scores import penalty
from litmus.formats import zoo_file
from litmus.zoo import Zoo
from litmus.zoo.groups import Seat
from litmus.zoo.spec import ModelSpec
from litmus.zoo.trainer import TrainedModel, fine_tune, store
from litmus.zoo.worker import Maker, Setup, serve

__all__ = ["main"]


def main() -> None:
    """Fine-tune models."""
    serve(_tuner)


def _tuner(setup: Setup) -> Maker:
    zoo, folder = Path(setup["zoo"]), Path(setup["folder"])
    data = None if setup["data"] is None else Path(setup["data"])
    dataset = Zoo.open(zoo, data=data).load_dataset()
    detector = load_detector(setup["detector"])

    def tune(spec: ModelSpec) -> TrainedModel:
        assert spec.fine_tuning is not None
        origin = zoo_file.load(zoo / f"{spec.fine_tuning.model}.safetensors")
        attack = None
        if spec.fine_tuning.weight:
            attack = penalty(detector, origin, spec.fine_tuning)
        return fine_tune(spec, origin, dataset, attack)

    def make(group: Sequence[Seat]) -> list[dict[str, Any]]:
        (seat,) = group
        return [store(seat.spec, folder, lambda: tune(seat.spec))]

    return make


if __name__ == "__main__":
    main()
