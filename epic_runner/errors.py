"""What can go wrong, as one tree.

```
EpicError              exit 1: the run failed
├── OperationFailed    a playbook, a node or a service did not reach its state
│   ├── PortsTaken     other programs have ports that were chosen for nodes
│   └── HostsSilent    hosts could not be reached
├── ClusterBusy        another operation holds the cluster
├── DockerUnavailable  the Docker engine of a host does not answer
├── SecretsUnavailable Vault is sealed, does not answer or refuses
├── StoreUnavailable   the database is down, locked, full or damaged
└── InputError         exit 2: what was asked cannot be done as asked
    ├── InputErrors    several mistakes in what people wrote, each with its place
    ├── NotFound       no such cluster, node, tenant or image
    └── QuotaExceeded  the tenant's quota or the hosts' capacity is too small
```

Exceptions only carry text; `epic_runner.__main__` alone prints them and ends the process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class EpicError(Exception):
    """Something a person can act on: what happened, where, and what to do next.

    Attributes:
        message: One sentence or a few, without a prefix.
        hint: The next step to take, often a command; None where there is none.
        exit_code: The process's exit code when this ends it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class OperationFailed(EpicError):
    """A playbook, a node or a service did not reach the state that was wanted."""


class PortsTaken(OperationFailed):
    """Other programs have ports that were chosen for the endpoints of `nodes` (short names)."""

    def __init__(self, message: str, nodes: Iterable[str]) -> None:
        super().__init__(message, "Free them, or run the same command again for other ports.")
        self.nodes = frozenset(nodes)


class HostsSilent(OperationFailed):
    """`hosts` (names) could not be reached, or their engines do not answer.

    Attributes:
        hosts: Their names.
        begun: Those of them that had answered before: something may have been made there.
    """

    def __init__(self, message: str, hosts: Iterable[str], begun: Iterable[str] = ()) -> None:
        self.hosts = frozenset(hosts)
        self.begun = frozenset(begun)
        name = min(self.hosts)
        hint = (
            "epic-run doctor tells what is wrong with it."
            if name == "local"
            else f"epic-run host check {name} looks at it; if it is gone for good, epic-run host "
            f"drain {name} --lost makes its nodes anew elsewhere."
        )
        super().__init__(message, hint)


class ClusterBusy(EpicError):
    """Another operation is at work on the cluster."""


class DockerUnavailable(EpicError):
    """The Docker engine of a host does not answer."""


class SecretsUnavailable(EpicError):
    """Vault is sealed, does not answer or refuses."""


class StoreUnavailable(EpicError):
    """The database is down, locked, full or damaged."""


class InputError(EpicError):
    """What was asked cannot be done as it was asked."""

    exit_code = 2


class NotFound(InputError):
    """There is no such cluster, node, tenant or image."""


class QuotaExceeded(InputError):
    """The tenant's quota or the hosts' capacity does not hold what is asked."""


@dataclass(frozen=True, order=True)
class Mistake:
    """One mistake in what people wrote.

    Attributes:
        where: `FILE:LINE`, or the option that was wrong.
        message: What is wrong, as a sentence.
        hint: What to write instead; None where nothing can be suggested.
    """

    where: str
    message: str
    hint: str | None = None


class InputErrors(InputError):
    """All mistakes of one reading, so that they can be mended in one go."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        first = self.mistakes[0]
        super().__init__(f"{first.where}: {first.message}", first.hint)
