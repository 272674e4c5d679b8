"""What is known of images: built or not, fresh or stale, what is inside."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from epic_runner.catalog import Catalog
from epic_runner.errors import NotFound
from epic_runner.images.builder import (
    FACTS_FOLDER,
    LABEL_SBOM,
    BuildEngine,
    ImageFacts,
    is_fresh,
    make_plans,
)
from epic_runner.spec.models import App


class Freshness(StrEnum):
    """Whether an image is what a build would make now."""

    FRESH = "fresh"
    STALE = "stale"
    MISSING = "missing"


@dataclass(frozen=True)
class ImageState:
    """One image of the catalogue, as it is on an engine.

    Attributes:
        app: The app.
        freshness: Whether a build would change it.
        facts: What the engine knows of it; None if it is missing.
    """

    app: App
    freshness: Freshness
    facts: ImageFacts | None


def states(
    catalog: Catalog, engine: BuildEngine, environ: Mapping[str, str] = os.environ
) -> list[ImageState]:
    """Return the state of every image of the catalogue, parents before their children.

    Raises:
        EpicError: A file of an image's folder cannot be read, or the engine does not answer.
    """
    facts = cache(engine.facts)
    plans = make_plans(catalog, environ)
    result = []
    for app in catalog:
        found = facts(app.reference)
        if found is None:
            freshness = Freshness.MISSING
        elif is_fresh(app, plans[app.name].lock, catalog, facts):
            freshness = Freshness.FRESH
        else:
            freshness = Freshness.STALE
        result.append(ImageState(app, freshness, found))
    return result


def read_sbom(state: ImageState, engine: BuildEngine) -> dict[str, Any]:
    """Return an image's bill of materials, CycloneDX JSON.

    Raises:
        NotFound: The image is not there, or was built without syft.
    """
    if state.facts is None:
        raise NotFound(
            f"{state.app.reference} is not built yet.", f"epic-run image build {state.app.name}"
        )
    path = state.facts.labels.get(LABEL_SBOM, "")
    data = engine.read_folder(state.facts.id, FACTS_FOLDER) if path else {}
    content = data.get(path.removeprefix(f"{FACTS_FOLDER}/"))
    if content is None:
        raise NotFound(
            f"{state.app.reference} was built without a bill of materials.",
            f"pip install 'epic-runner[build]', then epic-run image build {state.app.name} --force",
        )
    bill: dict[str, Any] = json.loads(content)
    return bill


def package_counts(state: ImageState, engine: BuildEngine) -> dict[str, int]:
    """Return how many packages of each kind (deb, pypi, maven, …) the bill of materials lists.

    Empty if there is no bill, or no image.
    """
    try:
        bill = read_sbom(state, engine)
    except NotFound:
        return {}
    kinds = (
        component.get("purl", "").removeprefix("pkg:").partition("/")[0]
        for component in bill.get("components", [])
    )
    return dict(Counter(kind for kind in kinds if kind))
