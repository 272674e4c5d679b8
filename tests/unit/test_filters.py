"""The filters of the inventory's data."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

PATH = Path(__file__).resolve().parents[2] / "filter_plugins" / "epic.py"
found = importlib.util.spec_from_file_location("epic_filters", PATH)
assert found
assert found.loader
filters = importlib.util.module_from_spec(found)
found.loader.exec_module(filters)

GIB = 2**30


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


@given(st.integers(GIB, 512 * GIB))
def test_spark_is_never_promised_more_memory_than_a_node_has(memory) -> None:
    executor = filters.spark_worker_mib(memory)
    assert executor >= filters.SPARK_LEAST_MIB
    if executor > filters.SPARK_LEAST_MIB:
        used = executor * (1 + filters.SPARK_OVERHEAD) + filters.SPARK_RESERVED_MIB
        assert used <= memory / filters.MIB + 1
    assert filters.spark_driver_mib(memory) <= memory // filters.MIB


def test_every_filter_is_offered_to_ansible() -> None:
    offered = filters.FilterModule().filters()
    assert all(callable(item) for item in offered.values())
    assert {"merge_offers", "with_files", "exec_commands"} <= set(offered)


@pytest.mark.parametrize("gib", [1, 2, 4, 8])
def test_more_memory_is_never_less_for_spark(gib: int) -> None:
    assert filters.spark_worker_mib(gib * GIB) <= filters.spark_worker_mib(2 * gib * GIB)
    assert filters.spark_driver_mib(gib * GIB) <= filters.spark_driver_mib(2 * gib * GIB)


def test_the_first_node_of_a_host_looks_for_one_of_each_other_host() -> None:
    nodes = [
        {"short_name": name, "container": f"c-{name}", "host": host, "address": address}
        for name, host, address in (
            ("master-1", "h1", "10.0.0.2"), ("worker-1", "h2", "10.0.0.3"),
            ("worker-2", "h2", "10.0.0.4"), ("worker-3", "h3", "10.0.0.5"),
        )
    ]  # fmt: skip
    [found] = filters.reach_commands(nodes, "h2", "code", 5)
    assert found["container"] == "c-worker-1"
    assert found["command"] == ["python3", "-c", "code", "5", "h1=10.0.0.2", "h3=10.0.0.5"]
    assert filters.reach_commands(nodes, "h4", "code", 5) == []
    assert filters.reach_commands(nodes[1:3], "h2", "code", 5) == []
