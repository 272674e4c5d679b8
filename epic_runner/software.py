"""Which Python, Java and app images hold, and whether they agree.

A driver and its executors have to have the same ones. Images that were built at different times may
not, within one cluster or between two, so that is looked at before anything is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import combinations

from epic_runner import docker_api
from epic_runner.cluster import ClusterSpec
from epic_runner.errors import InputError
from epic_runner.everywhere import ask_all, ask_any
from epic_runner.hosts import Host, local_host

# What is in an image, by the labels that its build has made of it.
SOFTWARE = {"epic.python": "Python", "epic.java": "Java"}
# The images below it, as words NAME=VERSION, and the id of the nearest one.
PARENTS, PARENT = "epic.parents", "epic.parent"

# By an image's reference, or its id: its labels.
Labels = Mapping[str, Mapping[str, str]]


def image_labels(hosts: Mapping[str, Host]) -> dict[str, Mapping[str, str]]:
    """Return the labels of images by reference and by id.

    They are those that hosts have; of images of one reference the controller's count, which are
    brought to hosts.

    Raises:
        DockerUnavailable: No host answers.
    """
    answers = ask_any(hosts.values(), docker_api.images)
    found = [answers[name] for name in sorted(answers, key=lambda name: hosts[name].is_local)]
    if not any(host.is_local for host in hosts.values()):
        with suppress(InputError):  # its engine is another machine's, which gives no images
            found += ask_all([local_host()], docker_api.images)[0].values()
    return {
        key: dict(image.get("Labels") or {})
        for images in found
        for reference, image in images.items()
        for key in (reference, image["Id"])
    }


def are_needed(spec: ClusterSpec) -> bool:
    """Whether anything of a cluster depends on the labels of images."""
    return bool(spec.connections) or len({role.image for role in spec.roles}) > 1


def software(image: str, app: str, labels: Labels) -> dict[str, str]:
    """Return the versions that an image holds, by what they are of: Python, Java and the app.

    What its labels do not tell, since no host has it or it is older than they are, is left out.
    """
    own = labels.get(image, {})
    found = {what: own.get(label, "") for label, what in SOFTWARE.items()}
    found[app] = next((links[app] for links in _lines_of(own, labels) if app in links), "")
    return {what: version for what, version in found.items() if version}


def _lines_of(labels: Mapping[str, str], known: Labels) -> Iterator[dict[str, str]]:
    """Yield versions of apps that an image is made of: its own, and those of the images below."""
    seen: list[str] = []
    while labels:
        yield {labels.get("epic.app", ""): labels.get("epic.version", "")}
        words = (word.partition("=") for word in labels.get(PARENTS, "").split())
        yield {name: version for name, _, version in words}
        # One of an earlier version names only its parent, which may be here still.
        seen.append(labels.get(PARENT, ""))
        labels = known.get(seen[-1], {}) if seen[-1] not in seen[:-1] else {}


def disagreement(first: Mapping[str, str], second: Mapping[str, str]) -> str | None:
    """Return what two images hold different versions of; None where nothing is known to differ."""
    return next((what for what in first if second.get(what, first[what]) != first[what]), None)


def check(spec: ClusterSpec, labels: Labels) -> None:
    """Refuse a cluster whose node roles have images that do not fit together.

    Raises:
        InputError: They hold different versions of Python, Java or the app.
    """
    for one, other in combinations(spec.roles, 2):
        own, theirs = (software(role.image, spec.app, labels) for role in (one, other))
        what = disagreement(own, theirs)
        if what:
            raise InputError(
                f"The nodes of {spec.name} would not fit together: {one.name} has {what} "
                f"{own[what]} ({one.image}), and {other.name} has {what} {theirs[what]} "
                f"({other.image}).",
                "epic-run image build makes images anew that were built on others than they "
                "would be now.",
            )
