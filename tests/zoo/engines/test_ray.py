"""A Ray cluster of two nodes on this machine, and an S3 server; `make test-cluster` has both."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litmus.cli import main
from litmus.errors import UsageError, ZooError
from litmus.zoo import Recipe, Zoo, build
from litmus.zoo.engines import RayEngine
from litmus.zoo.places import local_folder
from litmus.zoo.recipe import parse_recipe
from tests.conftest import REPOSITORY, SMALL_RECIPE, tiny_recipe_table

ray = pytest.importorskip("ray", reason="needs Ray: make test-cluster")
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs Ray: make test-cluster")
moto_server = pytest.importorskip("moto.server", reason="needs moto: make test-cluster")
boto3 = pytest.importorskip("boto3", reason="needs moto: make test-cluster")

pytestmark = [
    pytest.mark.cluster,
    # Libraries of others, which warn of their own matters.
    pytest.mark.filterwarnings("default"),
]

TWINS = 4


def recipe(**changes: Any) -> Recipe:
    return parse_recipe(tiny_recipe_table(**{"twins": TWINS, **changes}), "x")


def contents(folder: Path) -> dict[str, bytes]:
    files = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    return {p.name: p.read_bytes() for p in files if not p.name.endswith(".build.json")}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the local engine makes of the recipe."""
    folder = tmp_path_factory.mktemp("local")
    for _ in build(recipe(), folder):
        pass
    return folder


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of a bucket of a real S3 server on this machine."""
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="zoos")
        yield "s3://zoos"
    server.stop()


@pytest.fixture(scope="module")
def cluster(bucket: str) -> Iterator[Any]:
    """A head without a core and a node with one, in processes of this machine.

    They have the environment of the bucket: credentials are each node's own matter.
    """
    with pytest.MonkeyPatch.context() as patch:
        path = os.pathsep.join([str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")])
        patch.setenv("PYTHONPATH", path)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        made.add_node(num_cpus=1)
        yield made
        made.shutdown()


def test_a_node_that_is_killed_costs_no_model(cluster: Any, bucket: str, local: Path) -> None:
    dies = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    engine = RayEngine(address=cluster.address)
    events = []
    building = build(recipe(), f"{bucket}/killed", engine=engine, workers=None)
    with contextlib.closing(building):
        for event in building:
            events.append(event)
            if len({e.node for e in events} - {""}) == 2 and dies is not None:
                cluster.remove_node(dies, allow_graceful=False)
                dies = None
    assert dies is None, "both nodes made models"
    assert Counter(event.kind for event in events) == {"found": 1, "accepted": 2 * TWINS}
    assert len({event.model_id for event in events[1:]}) == 2 * TWINS
    assert events[-1].done == events[-1].total == 2 * TWINS
    assert contents(local_folder(f"{bucket}/killed")) == contents(local)
    # What is there is not made again.
    again = list(build(recipe(), f"{bucket}/killed", engine=engine))
    assert [(event.kind, event.done) for event in again] == [("found", 2 * TWINS)]


def test_a_folder_of_the_builder_needs_no_shared_disk(
    cluster: Any, local: Path, tmp_path: Path
) -> None:
    engine = RayEngine(address=cluster.address)
    for _ in build(recipe(), tmp_path, engine=engine, workers=1, scale=0.25):
        pass
    made = contents(tmp_path)
    assert len(made) == 1 + 2
    assert made.items() <= contents(local).items()


def test_stacks_have_the_bytes_that_they_have_here(
    cluster: Any, bucket: str, tmp_path: Path
) -> None:
    for _ in build(recipe(), tmp_path / "local", stack=3):
        pass
    engine = RayEngine(address=cluster.address)
    for place in (f"{bucket}/stacks", tmp_path / "folder"):
        for scale, stack in ((0.5, 3), (1.0, None)):  # then with what the zoo was begun with
            for _ in build(recipe(), place, engine=engine, scale=scale, stack=stack):
                pass
        assert contents(local_folder(place)) == contents(tmp_path / "local")


def test_stacks_are_measured_on_a_node(cluster: Any, tmp_path: Path) -> None:
    engine = RayEngine(address=cluster.address)
    for _ in build(recipe(), tmp_path, engine=engine, stack="auto", scale=0.25):
        pass
    assert "stack" in json.loads((tmp_path / "zoo.json").read_text())


def test_a_plan_is_for_the_nodes_that_there_are(
    cluster: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "small.toml"
    path.write_text(SMALL_RECIPE)
    command = ["litmus", "zoo", "plan", str(path), "--scale", "0.1", "-f", "json"]
    monkeypatch.setattr(sys, "argv", [*command, "--engine", "ray", "--address", cluster.address])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert not exit_.value.code
    nodes = json.loads(capsys.readouterr().out)["nodes"]
    assert nodes == [{"count": 1, "workers": 1, "gflops": None}]


def test_other_versions_are_refused(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "litmus.zoo.engines.ray.versions", lambda: {"litmus": "0.0.1", "torch": "1.0"}
    )
    engine = RayEngine(address=cluster.address)
    with pytest.raises(ZooError, match=r"other versions here .*0\.0\.1.* \(on node "):
        list(build(recipe(), tmp_path, engine=engine, scale=0.25))


def test_a_share_of_a_gpu_needs_one(cluster: Any, tmp_path: Path) -> None:
    engine = RayEngine(address=cluster.address, gpus_per_task=0.25)
    with pytest.raises(UsageError, match="the cluster has no GPU now"):
        list(build(recipe(), tmp_path, engine=engine, scale=0.25))


@pytest.mark.parametrize(
    ("device", "message"), [("cuda:1", "Ray tells a task its GPU"), ("cuda", "--gpus-per-task: ")]
)
def test_ray_says_which_gpu(tmp_path: Path, device: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        list(build(recipe(), tmp_path, engine=RayEngine(), device=device, stack=2))


def test_the_local_engine_builds_on_s3_and_verbs_read_it(
    bucket: str, local: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{bucket}/local"
    for _ in build(recipe(), url, scale=0.25):
        pass
    for verb in ("list", "verify"):
        monkeypatch.setattr(sys, "argv", ["litmus", "zoo", verb, url])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert not exit_.value.code
    said = capsys.readouterr().out
    assert "2 models checked, 0 damaged or untrue" in said
    entries = Zoo.open(url).entries
    assert all(entry.id in said for entry in entries)
    assert {e.path.read_bytes() for e in entries} <= set(contents(local).values())


def test_a_bucket_that_is_not_there(bucket: str) -> None:
    with pytest.raises(ZooError, match=r"s3://nowhere/zoo/zoo\.json: can't be written"):
        list(build(recipe(), "s3://nowhere/zoo"))
