"""From files to schedules: a job, all that it needs, and the files it brings along.

A schedule is kept whole, since its files may vanish and another machine may run it. What is not in
the files, the store has: tenants, flavors that were applied, clusters that are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epic_runner import programs
from epic_runner.cron import local_zone, next_time
from epic_runner.errors import InputError
from epic_runner.lifecycle import acting_user
from epic_runner.spec.checks import Checked
from epic_runner.spec.jobs import CARRIED, file_path
from epic_runner.spec.load import Documents
from epic_runner.spec.models import Job
from epic_runner.store import ScheduleRecord, Timing
from epic_runner.store.store import Transaction

# What a schedule may bring along, in all; larger files belong into the tenant's storage.
LARGEST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Scheduled:
    """A schedule and the files that its job brings along, by name."""

    record: ScheduleRecord
    files: Mapping[str, bytes]


def schedules_of(
    transaction: Transaction,
    documents: Documents,
    *,
    tenant: str | None,
    user: str | None,
    asker: str | None = None,
    now: float,
) -> list[Scheduled]:
    """Return the schedules of all jobs in files that have one.

    Args:
        transaction: Where tenants and clusters are known.
        documents: The files.
        tenant: The tenant, where the files do not say (`--tenant`).
        user: The member as whom jobs run that name none.
        asker: The member who asks; whoever runs the controller by default.
        now: Seconds since the epoch.

    Raises:
        InputError: No job has a schedule, a tenant cannot be told, the user is no member, or the
            files that a job brings along are too large.
    """
    jobs = [job for job in documents.jobs.values() if job.schedule is not None]
    if not jobs:
        raise InputError(
            "The files hold no Job with a schedule.", 'Add `schedule: "0 2 * * *"` to a Job.'
        )
    return [
        _scheduled(transaction, documents, job, tenant=tenant, user=user, asker=asker, now=now)
        for job in jobs
    ]


def timing_of(job: Job) -> Timing:
    """Return when a job runs; without a time zone by this machine's, whoever runs it later."""
    assert job.schedule is not None  # noqa: S101 - for the type checker
    wanted = job.schedule
    timing = Timing(
        cron=wanted.cron,
        timezone=wanted.timezone or local_zone(),
        overlap=wanted.overlap,
        missed=wanted.missed,
        retries=wanted.retries,
    )
    if wanted.retry_after is None:
        return timing
    return replace(timing, retry_after_seconds=wanted.retry_after)


def _scheduled(
    transaction: Transaction,
    documents: Documents,
    job: Job,
    *,
    tenant: str | None,
    user: str | None,
    asker: str | None,
    now: float,
) -> Scheduled:
    name = tenant or _tenant_of(transaction, documents, job)
    acting = acting_user(transaction.tenant(name), user or job.user, asker)
    source = documents.sources["Job", job.name]
    written = dict(source.document.data)
    del written["schedule"]
    submit = dict(written["submit"])
    files: dict[str, bytes] = {}
    templates = [
        _template(documents, template, files) for template in filter(None, [job.cluster.template])
    ]
    submit["file"] = _brought(file_path(source, job.submit.file), files)
    for key in CARRIED:
        if items := getattr(job.submit, key):
            submit[key] = [_carried(source, item, files) for item in items]
    if sum(map(len, files.values())) > LARGEST_BYTES:
        raise InputError(
            f"The files of the job {job.name} have more than {LARGEST_BYTES // 2**20} MiB.",
            "Put them into the tenant's storage, and name them by their paths there (/tenant/...).",
        )
    timing = timing_of(job)
    record = ScheduleRecord(
        tenant=name,
        name=job.name,
        user=acting,
        timing=timing,
        documents=(
            *_written(documents, "Flavor", documents.flavors),
            *templates,
            {**written, "tenant": name, "user": acting, "submit": submit},
        ),
        next_at=next_time(timing.cron, timing.timezone, now),
        created_at=now,
    )
    return Scheduled(record, files)


def _tenant_of(transaction: Transaction, documents: Documents, job: Job) -> str:
    template = documents.templates.get(job.cluster.template or "")
    named = job.tenant or (template.tenant if template else None)
    if named:
        return named
    if job.cluster.name is not None:
        return transaction.find_cluster(job.cluster.name).tenant
    raise InputError(f"The job {job.name} names no tenant.", "Give --tenant NAME.")


def _written(documents: Documents, kind: str, names: Iterable[str]) -> Sequence[Mapping[str, Any]]:
    return [dict(documents.sources[kind, name].document.data) for name in names]


def _template(documents: Documents, name: str, files: dict[str, bytes]) -> dict[str, Any]:
    """Return a template that finds the scripts of its actions beside it."""
    document = documents.sources["Template", name].document
    data = dict(document.data)
    if data.get("actions"):
        data["actions"] = [
            {**item, "run": _brought(str((document.source.folder / item["run"]).absolute()), files)}
            if item.get("run")
            else item
            for item in data["actions"]
        ]
    return data


def _carried(source: Checked, item: str, files: dict[str, bytes]) -> str:
    """Return how a file that goes along is named in the job, with an archive's folder."""
    file, _, folder = item.partition("#")
    name = _brought(file_path(source, file), files)
    return f"{name}#{folder}" if folder else name


def _brought(path: str, files: dict[str, bytes]) -> str:
    """Return how a file is named in the job; its content is added to `files` if it is here."""
    if programs.is_inside(path):
        return path
    name = Path(path).name
    content = Path(path).read_bytes()
    if files.get(name, content) != content:
        raise InputError(f"Two files of the job are called {name}.", "Rename one of them.")
    files[name] = content
    return name
