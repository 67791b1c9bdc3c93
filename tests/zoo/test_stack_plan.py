from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from litmus.errors import UsageError, ZooError
from litmus.stacked_training import StackSettings
from litmus.zoo.places import Place, open_place
from litmus.zoo.stack_plan import ONE_AT_A_TIME, StackPlan, StackRequest, read_plan, write_plan
from litmus.zoo.store import write_recipe_table

GPU = StackPlan(size=8, settings=StackSettings(device="cuda", precision="bf16"))


@pytest.fixture(params=["folder", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a zoo of some recipe was begun."""
    where = tmp_path if request.param == "folder" else f"memory://stack-plan/{tmp_path.name}"
    write_recipe_table(open_place(where), {"name": "tiny"})
    return open_place(where)


def test_a_zoo_keeps_its_plan(place: Place) -> None:
    assert read_plan(place) is None
    write_plan(place, GPU)
    assert read_plan(place) == GPU
    assert json.loads(place.read("zoo.json"))["recipe"] == {"name": "tiny"}
    write_recipe_table(place, {"name": "tiny"})
    assert read_plan(place) == GPU


def test_which_gpu_it_was_is_not_kept(place: Place) -> None:
    second = StackPlan(size=8, settings=StackSettings(device="cuda:1", precision="bf16"))
    write_plan(place, second)
    assert read_plan(place) == GPU
    assert StackRequest(device="cuda:1").plan(GPU, "zoo.json") == second
    assert StackPlan.from_json(json.loads(json.dumps(second.to_json()))) == second


def test_a_damaged_plan_is_told(place: Place) -> None:
    place.write("zoo.json", json.dumps({"recipe": {}, "stack": {"device": "cpu"}}))
    with pytest.raises(ZooError, match=r"zoo\.json: damaged: 'size'"):
        read_plan(place)


@pytest.mark.parametrize(
    ("request_", "plan"),
    [
        (StackRequest(), ONE_AT_A_TIME),
        (StackRequest(device="cpu"), ONE_AT_A_TIME),
        (StackRequest(size=4), StackPlan(size=4)),
        (StackRequest(size="auto"), None),
        (StackRequest(device="cuda"), None),
        (StackRequest(size=8, device="cuda", precision="bf16"), GPU),
    ],
)
def test_a_new_zoo_is_made_as_asked(request_: StackRequest, plan: StackPlan | None) -> None:
    assert request_.plan(None, "zoo.json") == plan


@pytest.mark.parametrize(
    "request_", [StackRequest(), StackRequest(size="auto"), StackRequest(size=8, device="cuda")]
)
def test_a_zoo_that_was_begun_goes_on_as_before(request_: StackRequest) -> None:
    assert request_.plan(GPU, "zoo.json") == GPU


@pytest.mark.parametrize(
    ("begun", "request_", "message"),
    [
        (
            GPU,
            StackRequest(size=4),
            "zoo.json: the zoo was begun otherwise (expected 8 at a time on cuda in bf16, "
            "got 4 at a time on cuda in bf16)",
        ),
        (GPU, StackRequest(precision="tf32"), "got 8 at a time on cuda in tf32"),
        (ONE_AT_A_TIME, StackRequest(size=2), "(expected 1 at a time on cpu in float32"),
        (ONE_AT_A_TIME, StackRequest(device="cuda"), "got 1 at a time on cuda in float32"),
    ],
)
def test_a_zoo_is_not_gone_on_with_otherwise(
    begun: StackPlan, request_: StackRequest, message: str
) -> None:
    with pytest.raises(ZooError) as caught:
        request_.plan(begun, "zoo.json")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "--stack is impossible (expected auto or at least 1, got 0)"),
        ({"device": "tpu"}, "--device is unknown (expected cpu, cuda or cuda:N, got tpu)"),
        ({"device": "cuda:x"}, "--device is unknown"),
        ({"precision": "fp8"}, "(expected float32 or tf32 or bf16, got fp8)"),
        ({"precision": "bf16"}, "--precision is for a GPU (expected --device cuda)"),
        ({"precision": "bf16", "device": "cpu"}, "--precision is for a GPU"),
    ],
)
def test_what_is_impossible_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        StackRequest(**options).plan(None, "zoo.json")
    assert message in str(caught.value)
