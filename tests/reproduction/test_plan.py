from __future__ import annotations

from dataclasses import replace

import pytest

from litmus.architectures import ARCHITECTURES
from litmus.models import InputSpec
from litmus.reproduction import make_plan, run_tasks
from litmus.reproduction.ablations import ablations_tasks
from litmus.reproduction.detection import table1_tasks
from litmus.reproduction.plan import Plan, Speed, measure_speed, training_flops
from litmus.reproduction.tasks import Work
from tests.reproduction.conftest import Open


def test_the_plan_counts_what_is_left(opened: Open) -> None:
    study = opened()
    tasks = table1_tasks(study)
    before = make_plan(study, tasks, workers=2)
    assert (before.models, before.fits, before.measurements, before.done) == (0, 8, 10, 0)
    assert before.seconds > 0
    run_tasks(tasks[:3], workers=1)
    study.zoos["small"].entries[-1].path.unlink()
    study = opened()
    after = make_plan(study, table1_tasks(study), workers=2)
    assert (after.models, after.fits, after.measurements, after.done) == (1, 5, 10, 3)


def test_shared_fits_count_once(opened: Open) -> None:
    study = opened(seeds=(0,))
    # Three poolings, no TV, no dropout, logits: what is default is one and the same fit.
    assert make_plan(study, ablations_tasks(study), workers=1).fits == 6


def test_more_work_takes_longer_and_more_workers_less(opened: Open) -> None:
    speed = Speed(per_pass=0.001, per_image=0.0001)
    assert speed.seconds(Work(passes=10, images=640)) == pytest.approx(0.074)
    study = opened()
    measured = measure_speed(study.recipes["small"], study.zoos["small"].entries)
    assert 0 < measured.seconds(Work(passes=1, images=64)) < 5
    by_patterns = [
        table1_tasks(opened(num_patterns=(m,), seeds=(0,)))[1].work().images for m in (1, 10)
    ]
    assert by_patterns[1] == 10 * by_patterns[0]


@pytest.mark.parametrize(
    ("seconds", "says"), [(0.0, "0 s"), (34 * 60, "34 min"), (7200, "2.0 h"), (0.2, "1 s")]
)
def test_the_plan_in_words(seconds: float, says: str) -> None:
    plan = Plan(models=120, fits=18, measurements=160, done=12, seconds=seconds, workers=2)
    assert str(plan) == (
        f"about {says} on 2 processes: 120 models to train, 18 fits, 160 measurements; "
        "12 already done"
    )
    assert "on 1 process:" in str(replace(plan, workers=1))


def test_the_operations_of_training_are_counted(opened: Open) -> None:
    spec = InputSpec(channels=1, height=28, width=28, num_classes=10)
    entry = opened().zoos["small"].entries[0]
    lenet = replace(entry.spec, architecture={"name": "lenet5"}, input_spec=spec)
    assert "lenet5" in ARCHITECTURES
    # Multiply-adds of an image forwards, layer by layer; the first has no gradient to pass on.
    first, others = 28 * 28 * 25 * 6, 10 * 10 * 25 * 6 * 16 + 400 * 120 + 120 * 84 + 84 * 10
    expected = 2 * (2 * first + 3 * others) * 32 * 5
    assert training_flops(replace(entry, spec=lenet, steps=5), 32) == expected
