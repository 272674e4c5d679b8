"""Reading the files of `launch` and `plan` against what the store already knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epic_runner.catalog import load_catalog
from epic_runner.cluster import ClusterSpec
from epic_runner.resources import content_root
from epic_runner.spec.load import load_documents
from epic_runner.spec.models import Flavor, Tenant
from epic_runner.spec.resolve import resolve_cluster
from epic_runner.store import Store


@dataclass(frozen=True)
class Reading:
    """A template made whole, with the documents to apply before it is launched."""

    spec: ClusterSpec
    tenant: Mapping[str, Any] | None
    flavors: tuple[Mapping[str, Any], ...]


def read_template(
    store: Store,
    files: Sequence[str],
    sets: Sequence[str],
    name: str | None,
    tenant: str | None,
) -> Reading:
    """Read and check files that hold one Template.

    Raises:
        InputErrors: All mistakes, each with its file and line.
    """
    with store.read() as transaction:
        flavors = {
            key: Flavor.model_validate(value) for key, value in transaction.flavors().items()
        }
        tenants = {
            record.name: Tenant.model_validate(record.document) for record in transaction.tenants()
        }
    catalog = load_catalog(content_root() / "images")
    known: dict[str, Any] = {"known_flavors": flavors, "known_tenants": tenants}
    documents = load_documents(files, sets, catalog=catalog, tenant=tenant, **known)
    spec = resolve_cluster(documents, catalog=catalog, name=name, tenant=tenant, **known)
    own = documents.tenants.get(spec.tenant)
    return Reading(
        spec,
        own.model_dump(mode="json") if own else None,
        tuple(flavor.model_dump(mode="json") for flavor in documents.flavors.values()),
    )
