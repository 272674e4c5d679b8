"""Reading the files of `launch`, `plan` and `run` against what the store already knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from epic_runner.catalog import load_catalog
from epic_runner.cluster import ClusterSpec
from epic_runner.errors import InputError
from epic_runner.resources import content_root
from epic_runner.spec.jobs import request_of
from epic_runner.spec.load import Documents, load_documents
from epic_runner.spec.models import Flavor, Tenant
from epic_runner.spec.resolve import resolve_cluster
from epic_runner.store import Store

if TYPE_CHECKING:
    from epic_runner.transient import JobPlan


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
    catalog = load_catalog(content_root() / "images")
    known = _known(store)
    documents = load_documents(files, sets, catalog=catalog, tenant=tenant, **known)
    spec = resolve_cluster(documents, catalog=catalog, name=name, tenant=tenant, **known)
    return _reading(documents, spec)


def read_job(
    store: Store, files: Sequence[str], sets: Sequence[str] = (), tenant: str | None = None
) -> JobPlan:
    """Read and check files that hold one Job, and what it needs.

    Raises:
        InputErrors: All mistakes, each with its file and line.
        InputError: The files hold no Job, or several.
    """
    from epic_runner.transient import JobPlan

    catalog = load_catalog(content_root() / "images")
    known = _known(store)
    documents = load_documents(files, sets, catalog=catalog, tenant=tenant, **known)
    found = [checked for (kind, _), checked in documents.sources.items() if kind == "Job"]
    if len(found) != 1:
        names = f" ({', '.join(documents.jobs)})" if found else ""
        message = f"The files hold {len(found) or 'no'} Job{'s' if found else ''}{names}."
        raise InputError(message, "Give files that hold one, and the Template that it names.")
    [job] = documents.jobs.values()
    plan = JobPlan(
        name=job.name,
        request=request_of(found[0]),
        tenant=tenant or job.tenant,
        user=job.user,
        cluster=job.cluster.name,
        keep=job.cluster.keep,
        spark_version=job.submit.spark_version,
    )
    if job.cluster.template is None:
        return plan
    spec = resolve_cluster(
        documents, catalog=catalog, template=job.cluster.template, tenant=plan.tenant, **known
    )
    reading = _reading(documents, spec)
    return replace(plan, spec=spec, tenant_document=reading.tenant, flavors=reading.flavors)


def read_documents(store: Store, files: Sequence[str], tenant: str | None) -> Documents:
    """Read and check files of any kinds; raises InputErrors as `read_template` does."""
    catalog = load_catalog(content_root() / "images")
    return load_documents(files, catalog=catalog, tenant=tenant, **_known(store))


def _known(store: Store) -> dict[str, Any]:
    """Return the flavors and tenants of the store, as `load_documents` takes them."""
    with store.read() as transaction:
        flavors = {
            key: Flavor.model_validate(value) for key, value in transaction.flavors().items()
        }
        tenants = {
            record.name: Tenant.model_validate(record.document) for record in transaction.tenants()
        }
    return {"known_flavors": flavors, "known_tenants": tenants}


def _reading(documents: Documents, spec: ClusterSpec) -> Reading:
    own = documents.tenants.get(spec.tenant)
    return Reading(
        spec,
        own.model_dump(mode="json") if own else None,
        tuple(flavor.model_dump(mode="json") for flavor in documents.flavors.values()),
    )
