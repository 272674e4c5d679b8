"""The filters of the inventory's data."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epic_runner.catalog import load_catalog

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "filter_plugins" / "epic.py"
found = importlib.util.spec_from_file_location("epic_filters", PATH)
assert found
assert found.loader
filters = importlib.util.module_from_spec(found)
found.loader.exec_module(filters)

MIB, GIB = 2**20, 2**30


def test_offers_of_several_roles_come_together_by_node_role() -> None:
    merged = filters.merge_offers(
        [
            {"master": {"files": {"/a": 1}, "ready": [["x"]], "dirs": ["d"]}},
            {"master": {"files": {"/b": 2}, "ready": [["y"]]}, "worker": {"logs": ["/l"]}},
            {},
        ],
        ["master", "worker"],
    )
    assert merged["master"]["files"] == {"/a": 1, "/b": 2}
    assert merged["master"]["ready"] == [["x"], ["y"]]
    assert merged["worker"] == {
        "files": {}, "secrets": {}, "dirs": [], "ready": [], "leave": [], "logs": ["/l"],
    }  # fmt: skip


def test_folders_become_the_file_that_the_init_reads() -> None:
    offers = filters.merge_offers([{"w": {"dirs": ["0755 a b /c", "0700 d e /f"]}}], ["w"])
    made = filters.with_files({"w": {"image": "i"}}, offers)
    assert made["w"]["image"] == "i"
    assert made["w"]["files"]["/etc/epic/dirs"]["content"] == "0755 a b /c\n0700 d e /f\n"


def test_commands_are_given_for_every_node_that_has_some() -> None:
    nodes = [
        {"short_name": f"{role}-1", "container": f"c-{role}", "role": role}
        for role in ("master", "worker")
    ]
    offers = filters.merge_offers([{"master": {"ready": [["a", 1], ["b"]]}}], ["master", "worker"])
    commands = filters.exec_commands(nodes, offers, "ready")
    assert [(item["node"], item["command"]) for item in commands] == [
        ("master-1", ["a", 1]),
        ("master-1", ["b"]),
    ]


def sized(memory_bytes: int, *services: str) -> dict[str, Any]:
    return {"memory_bytes": memory_bytes, "services": list(services)}


@given(st.integers(GIB, 512 * GIB), st.sampled_from([(), (filters.HISTORY,)]))
def test_spark_is_never_promised_more_memory_than_a_node_has(memory, services) -> None:
    role = sized(memory, *services)
    beside = filters.SPARK_RESERVED_MIB
    if services:
        beside += filters.spark_history_mib(memory) + filters.SPARK_HISTORY_BESIDE_MIB
    executor = filters.spark_worker_mib(role)
    assert executor >= filters.SPARK_LEAST_MIB
    if executor > filters.SPARK_LEAST_MIB:
        used = executor * (1 + filters.SPARK_OVERHEAD) + beside
        assert used <= memory / filters.MIB + 1
    driver = filters.spark_driver_mib(role)
    assert driver == filters.SPARK_LEAST_MIB or 2 * driver + beside <= memory // filters.MIB


def shared(*services: str) -> tuple[int, tuple[str, ...]]:
    """Return the least memory of a node with services beside those of its role, and all of them."""
    catalog = load_catalog(ROOT / "images")
    offered = catalog.offered(catalog.apps["spark"])
    role = catalog.apps["spark"].roles["master" if filters.MASTER in services else "worker"]
    extra = [offered[key] for key in services if key not in role.services]
    least = role.memory + sum(item.memory for item in extra)
    least += sum(
        size for item in extra for other, size in item.memory_beside.items() if other in services
    )
    return least, services


SHARED = [
    shared(filters.MASTER, filters.WORKER),
    shared(filters.WORKER, filters.JUPYTER),
    shared(filters.MASTER, filters.WORKER, filters.JUPYTER),
    shared(filters.MASTER, filters.WORKER, filters.JUPYTER, filters.HISTORY),
]


@given(st.sampled_from(SHARED), st.integers(0, 64 * GIB))
def test_executors_and_drivers_that_share_a_node_fit_into_it(of, more) -> None:
    least, services = of
    memory = least + more
    beside = filters.SPARK_RESERVED_MIB + filters.JUPYTER_MIB * (filters.JUPYTER in services)
    beside += filters.SPARK_DAEMON_MIB * (filters.MASTER in services)
    if filters.HISTORY in services:
        beside += filters.spark_history_mib(memory) + filters.SPARK_HISTORY_BESIDE_MIB
    role = sized(memory, *services)
    executor, driver = filters.spark_worker_mib(role), filters.spark_driver_mib(role)
    assert min(executor, driver) >= filters.SPARK_LEAST_MIB
    # A node of the least size has room for one driver at a time, as everywhere.
    drivers = 1 if executor == filters.SPARK_LEAST_MIB else 2
    used = (executor + drivers * driver) * (1 + filters.SPARK_OVERHEAD) + beside
    assert used <= memory // MIB + 1


@pytest.mark.parametrize(
    ("services", "gib", "executor", "driver"),
    [
        (("spark-worker",), 2, 1391, 800),
        (("spark-master", "jupyter"), 4, 3172, 1824),
        (("spark-worker", "jupyter"), 2, 512, 512),
        (("spark-worker", "jupyter"), 4, 1530, 765),
        (("spark-master", "spark-worker"), 4, 1422, 711),
    ],
)
def test_only_nodes_that_are_shared_give_executors_less(services, gib, executor, driver) -> None:
    role = sized(gib * GIB, *services)
    assert (filters.spark_worker_mib(role), filters.spark_driver_mib(role)) == (executor, driver)
    nodes = [{"name": "m", "role": "r"}]
    target = filters.spark_target({"r": {**role, "name": "r"}}, nodes, "", 7077)
    assert target["executor_mib"] == (executor if "spark-worker" in services else 512)


def test_a_node_of_the_least_size_has_what_a_history_server_takes() -> None:
    spark = load_catalog(ROOT / "images").apps["spark"]
    extra = spark.services[filters.HISTORY].memory
    least = spark.roles["master"].memory + extra
    assert (filters.spark_history_mib(least) + filters.SPARK_HISTORY_BESIDE_MIB) * MIB <= extra


def test_every_filter_is_offered_to_ansible() -> None:
    offered = filters.FilterModule().filters()
    assert all(callable(item) for item in offered.values())
    assert {"merge_offers", "with_files", "exec_commands"} <= set(offered)


@pytest.mark.parametrize("gib", [1, 2, 4, 8])
def test_more_memory_is_never_less_for_spark(gib: int) -> None:
    for services in ((), (filters.HISTORY,), *(services for _, services in SHARED)):
        less, more = sized(gib * GIB, *services), sized(2 * gib * GIB, *services)
        assert filters.spark_worker_mib(less) <= filters.spark_worker_mib(more)
        assert filters.spark_driver_mib(less) <= filters.spark_driver_mib(more)


def test_the_first_node_of_a_host_looks_for_one_of_each_other_host() -> None:
    nodes = [
        {"short_name": name, "container": f"c-{name}", "host": host, "address": address}
        for name, host, address in (
            ("master-1", "h1", "10.0.0.2"), ("worker-1", "h2", "10.0.0.3"),
            ("worker-2", "h2", "10.0.0.4"), ("worker-3", "h3", "10.0.0.5"),
        )
    ]  # fmt: skip
    [found] = filters.reach_commands(nodes, "h2", "code", 5, "early")
    assert found["container"] == "c-worker-1"
    assert found["command"] == [
        "python3", "-c", "code", "5", "early", "h1=10.0.0.2", "h3=10.0.0.5",
    ]  # fmt: skip
    assert filters.reach_commands(nodes, "h4", "code", 5, "late") == []
    assert filters.reach_commands(nodes[1:3], "h2", "code", 5, "late") == []
