"""Which logs are shown, and how many of their lines."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from life_samples import host, known, record, spec

from epic_runner import docker_api, docker_exec, logs
from epic_runner.cli import cli
from epic_runner.errors import DockerUnavailable, InputError, NotFound
from epic_runner.logs import Source

LAB = record(spec(workers=2), "master-1", "worker-1", "worker-2")
HOSTS = {"local": host()}


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"spark-worker/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The nodes' files by `CONTAINER:PATH`; a container that printed something by its name."""
    there: dict[str, bytes] = {}

    def printed(_host: object, container: str, _lines: int) -> bytes:
        if container not in there:
            raise NotFound(container)
        return there[container]

    def read(_host: object, container: str, path: str) -> bytes | None:
        return there.get(f"{container}:{path}")

    monkeypatch.setattr(docker_api, "read_file", read)
    monkeypatch.setattr(docker_api, "read_archive", read)
    monkeypatch.setattr(docker_api, "ping", lambda _host: None)
    monkeypatch.setattr(docker_api, "container_output", printed)
    return there


def name(node: str) -> str:
    return f"epic.work.lab.{node}"


def test_every_service_of_every_node_has_a_log() -> None:
    chosen = [(source.node.short_name, source.service) for source in logs.sources(LAB)]
    assert chosen == [
        ("master-1", "spark-master"), ("worker-1", "spark-worker"), ("worker-2", "spark-worker"),
    ]  # fmt: skip
    [one] = logs.sources(LAB, LAB.nodes[1])
    assert one.path == "/data/log/spark-worker/current"


def test_a_service_that_no_node_runs_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match="no service hive; it runs spark-master, spark-worker"):
        logs.sources(LAB, service="hive")
    with pytest.raises(InputError, match="lab-worker-1 runs no service spark-master"):
        logs.sources(LAB, LAB.nodes[1], "spark-master")


def test_lines_before_the_last_rotation_are_shown_too(files: dict[str, bytes]) -> None:
    folder = f"{name('worker-1')}:/data/log/spark-worker"
    files[f"{folder}/current"] = b"5\n6\n"
    files[folder] = archive(**{"@2.s": b"3\n4\n", "@1.s": b"1\n2\n", "lock": b"", "current": b"5"})
    [source] = logs.sources(LAB, LAB.nodes[1])
    [tail] = logs.tails(HOSTS, [source], 5)
    assert tail.lines == ("2", "3", "4", "5", "6")
    [short] = logs.tails(HOSTS, [source], 1)
    assert short.lines == ("6",)


def test_a_node_without_logs_shows_what_its_container_printed(files: dict[str, bytes]) -> None:
    files[name("master-1")] = b"epic-init: cannot make /data/spark\n"
    files[f"{name('worker-1')}:/data/log/spark-worker/current"] = b"fine\n"
    shown = logs.tails(HOSTS, logs.sources(LAB), 5)
    assert [(tail.source.service, tail.lines, tail.problem) for tail in shown] == [
        ("container", ("epic-init: cannot make /data/spark",), ""),
        ("spark-worker", ("fine",), ""),
        ("container", (), "there is no container"),
    ]


def test_a_host_that_does_not_answer_hides_no_other(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_host: object, container: str, path: str) -> bytes | None:
        if "worker-1" in container:
            raise DockerUnavailable("away")
        return files.get(f"{container}:{path}")

    def printed(_host: object, _container: str, _lines: int) -> bytes:
        raise DockerUnavailable("away")

    files[f"{name('worker-2')}:/data/log/spark-worker/current"] = b"fine\n"
    monkeypatch.setattr(docker_api, "read_file", read)
    monkeypatch.setattr(docker_api, "container_output", printed)
    shown = logs.tails(HOSTS, logs.sources(LAB, service="spark-worker"), 5)
    assert [(tail.problem, tail.lines) for tail in shown] == [("away", ()), ("", ("fine",))]


@given(st.binary(max_size=200), st.integers(min_value=0, max_value=10))
def test_last_lines_are_never_more_than_asked_for(data: bytes, count: int) -> None:
    lines = logs.last_lines(data, count)
    assert len(lines) <= count
    assert not any("\n" in line for line in lines)


def test_followed_pieces_become_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(*arguments: object, **_: object) -> int:
        write = arguments[3]
        for piece in (b"on", b"e\ntwo\nth", b"r\xff", b"ee"):
            write(piece, False)  # type: ignore[operator]  # noqa: FBT003
        raise DockerUnavailable("away")

    monkeypatch.setattr(docker_exec, "stream", stream)
    shown: list[tuple[str, str]] = []
    missed: list[tuple[str, str]] = []
    threads: set[int] = set()

    def show(source: Source, line: str) -> None:
        threads.add(threading.get_ident())
        shown.append((source.node.short_name, line))

    def miss(source: Source, problem: str) -> None:
        missed.append((source.node.short_name, problem))

    logs.follow(HOSTS, logs.sources(LAB, service="spark-worker"), 1, show, miss)
    for node in ("worker-1", "worker-2"):
        of = [line for where, line in shown if where == node]
        assert of == ["one", "two", "thr\ufffdee"]
    assert sorted(missed) == [("worker-1", "away"), ("worker-2", "away")]


# -- what the verb makes of it -----------------------------------------------------------------


@pytest.fixture
def epic_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """The command line, with a store that knows the cluster lab of two nodes."""
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    with known(tmp_path, spec(), "master-1", "worker-1"):
        yield lambda *words: CliRunner().invoke(cli, words)


def refuse(*_: object, **__: object) -> Any:
    raise DockerUnavailable("Docker on host local does not answer")


@pytest.mark.parametrize("more", [[], ["--follow"], ["-o", "json"], ["--follow", "-o", "json"]])
def test_logs_of_which_none_can_be_read_are_a_failure(
    epic_run: Callable[..., Result], more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_api, "ping", refuse)
    monkeypatch.setattr(docker_exec, "stream", refuse)
    ended = epic_run("logs", "lab", *more)
    assert isinstance(ended.exception, DockerUnavailable)
    assert ended.exception.message == "Docker on host local does not answer"
    assert ended.exception.hint == "epic-run doctor tells what is wrong with it."


def test_to_programs_a_problem_is_no_line(
    epic_run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stream(*arguments: Any, **_: object) -> int:
        if "worker" in arguments[1]:
            refuse()
        arguments[3](b"fine\n", is_error=False)
        return 0

    monkeypatch.setattr(docker_exec, "stream", stream)
    ended = epic_run("logs", "lab", "--follow", "--output", "json")
    assert ended.exit_code == 0
    told = sorted(ended.stdout.splitlines())
    assert [json.loads(line) for line in told] == [
        {"node": "master-1", "service": "spark-master", "line": "fine"},
        {"node": "worker-1", "service": "spark-worker",
         "problem": "Docker on host local does not answer"},
    ]  # fmt: skip
