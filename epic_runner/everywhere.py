"""Asking all hosts at once: what answers, and why the others do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from epic_runner.deadline import ANSWER_SECONDS, within
from epic_runner.errors import DockerUnavailable, EpicError
from epic_runner.hosts import Host

# A host costs little more than a thread that waits; ssh itself is started for each.
AT_ONCE = 32

Answer = TypeVar("Answer")


def ask_all(
    hosts: Iterable[Host],
    question: Callable[[Host], Answer],
    seconds: float = ANSWER_SECONDS,
) -> tuple[dict[str, Answer], dict[str, str]]:
    """Put a question to hosts, all at once.

    Args:
        hosts: The hosts.
        question: Asks one of them.
        seconds: What each has for the whole of it; one that takes longer counts as silent.

    Returns:
        The answers by host, and for those that gave none, why.
    """

    def ask(host: Host) -> tuple[str, Answer | None, str]:
        try:
            with within(seconds):
                return host.name, question(host), ""
        except EpicError as problem:
            return host.name, None, problem.message

    hosts = list(hosts)
    if len(hosts) == 1:
        replies = [ask(hosts[0])]
    else:
        with ThreadPoolExecutor(min(max(len(hosts), 1), AT_ONCE)) as pool:
            replies = list(pool.map(ask, hosts))
    problems = {name: why for name, _, why in replies if why}
    answers = {name: answer for name, answer, why in replies if not why and answer is not None}
    return answers, problems


def ask_any(
    hosts: Iterable[Host],
    question: Callable[[Host], Answer],
    seconds: float = ANSWER_SECONDS,
) -> dict[str, Answer]:
    """Put a question to hosts, all at once; return the answers of those that gave one.

    Raises:
        DockerUnavailable: There are hosts, and none answered.
    """
    answers, problems = ask_all(hosts, question, seconds)
    if problems and not answers:
        raise DockerUnavailable(
            "; ".join(problems.values()), "epic-run doctor and epic-run host check look closer."
        )
    return answers
