"""What a zoo would cost: counted, measured on a few steps, and scaled to other machines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from litmus.artifacts import parse_tensors
from litmus.datasets import ImageDataset
from litmus.errors import RecipeError, UsageError, ZooError
from litmus.zoo.calibration import Line, _line
from litmus.zoo.costs import cost_counter
from litmus.zoo.engines.ray import _batch, alive
from litmus.zoo.expansion import expand
from litmus.zoo.groups import Waiting, seats
from litmus.zoo.plan import Nodes, Plan, acceptance_of, load_cluster, plan_zoo
from litmus.zoo.recipe import parse_recipe
from litmus.zoo.store import write_rejected
from litmus.zoo.trainer import train_model
from tests.conftest import tiny_recipe_table

RECIPE = parse_recipe(
    tiny_recipe_table(twins=4, attempts=3, attack={"label_map": "all_to_one"}), "x"
)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_zoo(RECIPE, acceptance=0.5)


def test_the_steps_and_the_size_are_those_of_the_training(digits: ImageDataset) -> None:
    spec = expand(RECIPE, digits.input_spec)[0]
    cost = cost_counter(len(digits.train))(spec)
    _, header = parse_tensors(train_model(spec, digits).content, "x", ZooError)
    # Classes are not quite of one size.
    assert cost.steps == pytest.approx(header["steps"], rel=0.02)
    module = spec.build_architecture().build(spec.input_spec, seed=0)
    assert cost.size == sum(tensor.numel() for tensor in module.state_dict().values())
    assert cost.flops == 3 * cost.steps * cost.batch_size * cost.forward_flops > 0


def test_a_plan_counts_attempts_and_adds_up(plan: Plan) -> None:
    assert plan.models == 8
    assert plan.accepted == pytest.approx(8 * (1 - 0.5**3))
    assert plan.attempts == pytest.approx(8 * (1 + 0.5 + 0.25))
    assert plan.families.keys() == {"vgg"}
    models, seconds = plan.families["vgg"]
    assert models == 8
    assert seconds == pytest.approx(plan.seconds)
    assert 0 < plan.longest < plan.seconds
    assert plan.worker_bytes > 1e8
    assert 0 < plan.disk_bytes < 1e6


def test_hours_scale_with_workers_and_their_speed(plan: Plan) -> None:
    one = plan.hours((Nodes(),))
    assert one == pytest.approx(plan.cpu_hours)
    assert plan.hours((Nodes(workers=2),)) == pytest.approx(one / 2)
    assert plan.hours((Nodes(gflops=plan.gflops / 4),)) == pytest.approx(4 * one)
    mixed = (Nodes(), Nodes(count=2, gflops=plan.gflops / 2))
    assert plan.hours(mixed) == pytest.approx(one / 2)
    assert plan.hours((Nodes(count=10_000),)) == pytest.approx(plan.longest / 3600)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", UsageError),
        ("nodes = []", UsageError),
        ("x = 1\n[[nodes]]", UsageError),
        ("[[nodes]]\ncount = 0", RecipeError),
        ("[[nodes]]\nprice = 3", RecipeError),
    ],
)
def test_what_is_no_cluster(tmp_path: Path, text: str, error: type[Exception]) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    with pytest.raises(error, match=r"cluster\.toml"):
        load_cluster(path)
    path.write_text("[[nodes]]\ncount = 4\nworkers = 64\ngflops = 90.0\n")
    assert load_cluster(path) == (Nodes(count=4, workers=64, gflops=90.0),)


def test_the_acceptance_of_a_zoo_that_was_begun(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no models to go by"):
        acceptance_of(tmp_path)
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.safetensors").touch()
    write_rejected(tmp_path, "d", {})
    assert acceptance_of(tmp_path) == 0.75


def test_networks_that_differ_in_their_batches_alone_make_no_line() -> None:
    assert _line([(5.0, 1.0), (5.0, 3.0)]) == Line(fixed=0.0, per_flop=0.4)
    assert _line([(1.0, 3.0), (3.0, 5.0)]) == Line(fixed=2.0, per_flop=1.0)
    assert _line([(1.0, 0.5), (3.0, 3.5)]) == Line(fixed=0.0, per_flop=1.0)


def test_a_clusters_nodes_are_those_that_run_tasks_now() -> None:
    nodes = [
        {"Alive": alive_, "Resources": {"CPU": cores, "memory": 1.0} if cores else {"memory": 1.0}}
        for alive_, cores in ((True, 8.0), (True, 64.0), (False, 64.0), (True, None), (True, 8.0))
    ]
    assert alive(nodes) == (Nodes(workers=64), Nodes(count=2, workers=8))
    with pytest.raises(UsageError, match=r"no core now .*--cluster FILE\.toml"):
        alive(nodes[2:4])


@pytest.mark.parametrize("acceptance", [0.0, 1.5, -1.0])
def test_an_impossible_acceptance(acceptance: float) -> None:
    with pytest.raises(UsageError, match="--acceptance is impossible"):
        plan_zoo(RECIPE, acceptance=acceptance)


def test_tiny_models_share_a_task(digits: ImageDataset) -> None:
    specs = expand(replace(RECIPE, twins=3), digits.input_spec)
    work: dict[str, Any] = dict(zip([s.id for s in specs], [9.0, 4, 3, 2, 1, 1], strict=True))
    assert _batches(Waiting(seats(specs, 1)), 1, work) == [[[9.0]], [[4], [3]], [[2], [1], [1]]]
    # A stack is as much work as so many models, whether it is full or not.
    assert _batches(Waiting(seats(specs, 2)), 2, work) == [[[9.0, 4]], [[3, 2], [1, 1]]]


def _batches(waiting: Waiting, size: int, work: dict[str, Any]) -> list[list[list[float]]]:
    found = []
    while waiting:
        batch = _batch(waiting, size, work, 8.0)
        found.append([[work[seat.spec.id] for seat in group] for group in batch])
    return found
