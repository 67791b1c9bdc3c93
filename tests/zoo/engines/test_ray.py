"""A Ray cluster of two nodes on this machine, and an S3 server; `make test-cluster` has both."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litmus.zoo import Recipe, build
from litmus.zoo.engines import RayEngine
from litmus.zoo.places import local_folder
from litmus.zoo.recipe import parse_recipe
from tests.conftest import REPOSITORY, tiny_recipe_table

ray = pytest.importorskip("ray", reason="needs Ray: make test-cluster")
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs Ray: make test-cluster")
moto_server = pytest.importorskip("moto.server", reason="needs moto: make test-cluster")
boto3 = pytest.importorskip("boto3", reason="needs moto: make test-cluster")

pytestmark = [
    pytest.mark.cluster,
    # Libraries of others, which warn of their own matters.
    pytest.mark.filterwarnings("default"),
]


def recipe(**changes: Any) -> Recipe:
    return parse_recipe(tiny_recipe_table(**{"twins": 8, **changes}), "x")


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
def cluster() -> Iterator[Any]:
    """A head without a core, so that all work is on the nodes that a test adds."""
    with pytest.MonkeyPatch.context() as patch:
        path = os.pathsep.join([str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")])
        patch.setenv("PYTHONPATH", path)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        yield made
        made.shutdown()


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


def test_a_node_that_is_killed_costs_no_model(
    cluster: Any, bucket: str, local: Path, tmp_path: Path
) -> None:
    stays = cluster.add_node(num_cpus=1)
    dies = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    # The last one is long, so that the node that dies has a model in hand.
    events = []
    for event in build(
        recipe(), f"{bucket}/killed", engine=RayEngine(address=cluster.address), workers=None
    ):
        events.append(event)
        if len({e.node for e in events} - {""}) == 2 and dies is not None:
            cluster.remove_node(dies, allow_graceful=False)
            dies = None
    assert dies is None, "both nodes made models"
    assert Counter(event.kind for event in events) == {"found": 1, "accepted": 16}
    assert len({event.model_id for event in events[1:]}) == 16
    mirror = local_folder(f"{bucket}/killed")
    assert contents(mirror) == contents(local)
    assert events[-1].done == events[-1].total == 16
    cluster.remove_node(stays)
