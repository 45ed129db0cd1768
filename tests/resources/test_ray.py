"""Workers on a Ray cluster of two nodes on this machine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs .[ray]")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray's own, in every version others
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(280),
]

from assets import units  # noqa: E402
from assets.units import do  # noqa: E402
from resources.workers import LOST, RayCluster  # noqa: E402
from tests.assets.test_units import killed_and_mended, marked  # noqa: E402
from tests.assets.world import DAYS, World, digests, events  # noqa: E402


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])  # what the nodes import
    made = import_module("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.fixture
def workers(cluster: Any) -> Iterator[RayCluster]:
    made = RayCluster(cluster.address)
    yield made
    made.close()


def node_of(_: int) -> str:
    return str(import_module("ray").get_runtime_context().get_node_id())


def die_of(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_units_run_on_both_nodes(workers: RayCluster) -> None:
    assert workers.slots == 2
    assert len({node for _, node in workers.map(node_of, range(20))}) == 2


def test_a_killed_worker_costs_its_unit_alone(workers: RayCluster) -> None:
    assert dict(workers.map(die_of, range(8))) == {n: LOST if n == 3 else n for n in range(8)}


def test_a_cluster_builds_what_one_process_builds(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By configuration alone; digests of everything."""
    apart, here = World.local(tmp_path / "apart"), World.local(tmp_path / "here")
    tenants = ("acme", "globex")
    for world in (apart, here):
        for tenant in tenants:
            world.write(tenant, events(tenant))
    assert all(day.ok for day in here.build())
    monkeypatch.setattr(units, "HERE_BYTES_MAX", 0)
    monkeypatch.setenv("CONTEXT_PLANE_WORKERS", "ray")
    monkeypatch.setenv("CONTEXT_PLANE_RAY_ADDRESS", cluster.address)
    assert all(day.ok for day in apart.build())
    with apart.open() as one, here.open() as other:
        for tenant in tenants:
            assert digests(one, tenant) == digests(other, tenant)


def test_a_dead_worker_costs_one_tenant(workers: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "HERE_BYTES_MAX", 0)
    tenants = dict.fromkeys(["calm", "mortal", "quiet", "refused", "shaken"], 1)
    with World.local(tmp_path).open() as opened:
        found = do(opened, workers, tenants, DAYS[0], "segments", partial(marked, folder=tmp_path))
    assert sorted(found.made) == ["calm", "quiet", "shaken"]
    assert [(item.tenant, item.code) for item in found.failed] == [
        ("mortal", "worker_lost"),
        ("refused", "object_not_found"),
    ]


def test_a_day_whose_worker_is_killed_is_named_and_mended_by_the_next_run(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day as Dagster builds it, with a worker of the cluster killed in the middle. Seen to fail with
    `WorkerCrashedError` let out."""
    monkeypatch.setattr(units, "HERE_BYTES_MAX", 0)
    environment = {"CONTEXT_PLANE_WORKERS": "ray", "CONTEXT_PLANE_RAY_ADDRESS": cluster.address}
    killed_and_mended(tmp_path, monkeypatch, environment)


def stay_of(asked: tuple[int, str, Path]) -> int:
    """On the node that is to die it never ends."""
    number, doomed, mark = asked
    if node_of(number) == doomed:
        mark.touch()
        time.sleep(600)
    return number


def test_a_killed_node_costs_the_units_that_it_ran(cluster: Any, workers: RayCluster, tmp_path: Path) -> None:
    """Of a third node, which is killed with all its processes once it works. One unit may wait at it, too. Seen to fail
    with `NodeDiedError` and `WorkerCrashedError` let out."""
    node, mark = cluster.add_node(num_cpus=1), tmp_path / "works"

    def kill() -> None:
        while not mark.exists():
            time.sleep(0.1)
        cluster.remove_node(node, allow_graceful=False)

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        found = dict(workers.map(stay_of, [(n, node.node_id, mark) for n in range(12)]))
        killing.result()
    lost = [n for n, result in found.items() if result is LOST]
    assert 1 <= len(lost) <= 2
    assert found == {n: LOST if n in lost else n for n in range(12)}
