"""Jobs: a program checked, recorded, and started on a cluster's node.

A job lives in its node, in a folder under /data/jobs, and needs nobody outside to go on or to be
found again: `epic-job` in the node starts, follows, cancels and lists. The playbook submit.yml
starts it; what comes of it, `tracking` finds out. A job does not hold its cluster, which may grow
meanwhile.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from epic_runner import connections, docker_api, docker_exec, programs, ssh, tracking
from epic_runner.actions.due import awaited
from epic_runner.cluster import Node
from epic_runner.errors import EpicError, InputError, NotFound, OperationFailed
from epic_runner.hosts import Host
from epic_runner.inventory import cluster_inventory
from epic_runner.lifecycle import Context, acting_user
from epic_runner.literal import literal
from epic_runner.operations import new_id, operation_directory
from epic_runner.programs import JobRequest
from epic_runner.runner import run_playbook
from epic_runner.secrets import cluster_secrets
from epic_runner.store import ClusterRecord, JobRecord, TenantRecord
from epic_runner.store.store import Transaction

# What is brought along with a job travels in memory; larger files belong in the tenant's storage.
LARGEST_BYTES = 64 * 2**20

# Spark's settings for a connected cluster, in every node; the role `spark` offers them.
CONNECTION_FOLDER = "/etc/spark/connections/{}"

# The kinds of files that only the image of JupyterLab can run.
NEED_JUPYTER = (".R", ".r", ".ipynb")


class Cancelled(EpicError):
    """A job was cancelled before it began."""


def check(request: JobRequest) -> None:
    """Refuse what could not run, before anything is started.

    Raises:
        InputError: A file is missing, too large, of no known kind, or has another one's name; or
            a property or variable has an impossible name.
    """
    if programs.kind_of(request.file) is None:
        raise InputError(
            f"{request.file}: it is not clear how to run a file of this kind.",
            f"Known are {programs.KINDS_TEXT}.",
        )
    for file in request.py_files:
        if not programs.is_python_file(file):
            raise InputError(f"{file} is none of {', '.join(programs.PY_FILE_KINDS)}.")
    brought = [file for file in request.all_files if not programs.is_inside(file)]
    for file in brought:
        _check_file(Path(file))
    if name := programs.called_alike(brought):
        raise InputError(f"Two files of the job are called {name}.", "Rename one of them.")
    _check_names(request.conf, programs.CONF_KEY, "a Spark property")
    _check_names(request.environment, programs.VARIABLE, "an environment variable")
    if request.arguments and not programs.takes_arguments(request.file):
        raise InputError(
            f"{request.file}: a notebook takes no arguments.",
            "Give it variables, by --env NAME=VALUE, and read them with os.environ.",
        )


def _check_names(names: Iterable[str], pattern: str, what: str) -> None:
    for name in names:
        if not re.fullmatch(pattern, name, re.ASCII):
            raise InputError(f'"{name}" is no name of {what}.')


def _check_file(path: Path) -> None:
    try:
        with path.open("rb"):
            size = path.stat().st_size
    except OSError as problem:
        raise InputError(
            f"{path}: {problem.strerror}.",
            "A path that begins with /tenant/ or /data/ means a file inside the nodes; every other "
            "one a file of this machine.",
        ) from problem
    if size > LARGEST_BYTES:
        raise InputError(
            f"{path} has {size / 2**20:.0f} MiB; at most {LARGEST_BYTES // 2**20} are brought "
            "along with a job.",
            "Put it into the tenant's storage, and submit it by its path there: "
            f"epic-run shell CLUSTER -- tee /tenant/{path.name} < {path} >/dev/null",
        )


def submitting_node(cluster: ClusterRecord) -> Node:
    """Return the node on which drivers run: where the notebooks are, else Spark's master.

    Raises:
        NotFound: The cluster has no nodes.
    """
    for service in ("jupyter", "spark-master", None):
        for node in cluster.staying():
            if service is None or service in cluster.spec.role(node.role).services:
                return node
    raise NotFound(f"{cluster.name} has no nodes.", f"epic-run repair {cluster.name}")


def refuse_stopped(cluster: ClusterRecord) -> None:
    """Raise InputError unless the cluster is meant to be running."""
    if cluster.wanted == "running":
        return
    if cluster.wanted == "stopped":
        raise InputError(f"{cluster.name} is stopped.", f"epic-run start {cluster.name}")
    raise InputError(
        f"{cluster.name} is half destroyed.", f"epic-run destroy {cluster.name} --yes finishes it."
    )


def _refuse_unready(transaction: Transaction, cluster: ClusterRecord) -> None:
    """Raise InputError unless a cluster runs and has had the actions that its template declares."""
    refuse_stopped(cluster)
    if not cluster.spec.actions:
        return
    if names := awaited(cluster, transaction.declared_history(cluster)):
        raise InputError(
            f"{cluster.name} is of use when the actions that its template declares are done: "
            f"{', '.join(names)}.",
            f"epic-run status {cluster.name} tells how far they are; "
            f"epic-run repair {cluster.name} goes on with them.",
        )


def _refuse_elsewhere(transaction: Transaction, cluster: ClusterRecord, on: str) -> None:
    """Raise InputError unless a cluster is connected to one that runs."""
    if on not in cluster.spec.connections:
        names = ", ".join(cluster.spec.connections)
        raise InputError(
            f"{cluster.name} is not connected with {on}.",
            f"It is connected with {names}."
            if names
            else f"Add `connections: {{clusters: [{on}]}}` to its template, and launch it again.",
        )
    clusters = transaction.clusters()
    there = {item.name: item for item in connections.connected(cluster.spec, clusters)}
    if on not in there:
        raise InputError(f"The connected cluster {on} is gone.", f"Launch {on} again.")
    _refuse_unready(transaction, there[on])


def refuse_dead(host: Host, cluster: ClusterRecord, node: Node) -> None:
    """Raise OperationFailed unless a node's container runs."""
    try:
        if docker_api.inspect(host, node.container)["State"]["Running"]:
            return
    except NotFound:
        pass
    raise OperationFailed(
        f"{node.name} does not run.",
        f"epic-run status {cluster.name} tells why; epic-run repair {cluster.name} brings it back.",
    )


def new_record(request: JobRequest, *, tenant: str, cluster: str, user: str) -> JobRecord:
    """Return the record of a job that begins now."""
    now = time.time()
    return JobRecord(
        id=new_id(now), tenant=tenant, cluster=cluster, user=user, name=request.called,
        file=_resolved(request.file), digest=_digest(request.file), options=request.options(),
        started_at=now,
    )  # fmt: skip


def start(
    context: Context,
    name: str,
    request: JobRequest,
    *,
    tenant: str | None = None,
    user: str | None = None,
    record: JobRecord | None = None,
    announce: Callable[[JobRecord], None] = lambda _job: None,
) -> JobRecord:
    """Start a job on a running cluster, in the background of its submitting node.

    It is recorded before it starts, and so is one that its user may not run.

    Args:
        context: The store and the hosts.
        name: The cluster.
        request: What to run.
        tenant: The cluster's tenant, where the name needs it.
        user: As which member; the tenant's first administrator by default.
        record: The job's record, where it was made before its cluster was.
        announce: Called just before the job is started, so that the caller can follow it from its
            first moment, and cancel it whenever it is interrupted.

    Raises:
        Cancelled: Somebody has cancelled the job before it began.
        InputError: The request, the user or the cluster's state does not allow it.
        OperationFailed: A node that should run does not, or the job could not be started.
    """
    check(request)
    with context.store.read() as transaction:
        cluster = transaction.find_cluster(name, tenant)
        owner = transaction.tenant(cluster.tenant)
        _refuse_unready(transaction, cluster)
        if request.on:
            _refuse_elsewhere(transaction, cluster, request.on)
    job = record or new_record(
        request, tenant=cluster.tenant, cluster=cluster.name, user=user or ""
    )
    job = replace(job, user=_acting(context, owner, job, user))
    node = submitting_node(cluster)
    refuse_dead(context.hosts[node.host], cluster, node)
    kind = programs.kind_of(request.file)
    if kind in NEED_JUPYTER:
        _refuse_without_jupyter(cluster, node, programs.KINDS[str(kind)])
    if programs.is_inside(request.file):
        _check_inside(context.hosts[node.host], cluster, node, request.file)
    job = replace(job, node=node.short_name, host=node.host, state="starting")
    with context.store.transaction() as transaction:
        if record is None:
            transaction.add_job(job)
        elif transaction.job(job.id).state == "cancelling":
            raise Cancelled(f"The job {job.id} was cancelled before it began.")
        else:
            place = {"node": job.node, "host": job.host, "user": job.user}
            transaction.set_job(job.id, state=job.state, **place)
    announce(job)
    directory = operation_directory(job.id)
    try:
        run_playbook(
            "submit",
            job_inventory(context, cluster, owner, job, request),
            directory,
            operation=job.id,
            listener=lambda _step: None,
        )
    except OperationFailed as problem:
        with context.store.transaction() as transaction:
            why = f"it could not be started: {problem.message}"
            transaction.set_job(job.id, state="failed", reason=why, ended_at=time.time())
        raise
    # A job that was started is its node's; the traces of the start are of use only when it failed.
    shutil.rmtree(directory, ignore_errors=True)
    with context.store.transaction() as transaction:
        # A short one may be over by now.
        if transaction.job(job.id).state == "starting":
            transaction.set_job(job.id, state="running")
        job = transaction.job(job.id)
    if job.state in ("cancelling", "cancelled"):
        # Who cancelled it may have come to its node before the job did.
        tracking.end_in_node(ssh.nearby(context.hosts[node.host]), node, job.id)
    return job


def _acting(context: Context, owner: TenantRecord, job: JobRecord, user: str | None) -> str:
    """Return who runs a job; people want to know of those who tried and may not."""
    try:
        return acting_user(owner, user, context.asker)
    except InputError as problem:
        refused = replace(
            job, state="refused", reason=problem.message, ended_at=job.started_at, is_settled=True
        )
        with context.store.transaction() as transaction:
            if not job.is_transient:
                transaction.add_job(refused)
        raise


def job_inventory(
    context: Context,
    cluster: ClusterRecord,
    tenant: TenantRecord,
    job: JobRecord,
    request: JobRequest,
) -> dict[str, Any]:
    """Return the cluster's inventory with the variables of one job."""
    inventory = cluster_inventory(
        cluster,
        tenant,
        context.hosts,
        secrets=cluster_secrets(cluster.tenant, cluster.name),
    )
    wanted = {
        "job_id": job.id,
        "job_user": job.user,
        "job_node": job.node,
        "job_file": _resolved(request.file),
        "job_arguments": list(request.arguments),
        "job_conf": dict(request.conf),
        "job_py_files": [_resolved(file) for file in request.py_files],
        "job_jars": [_resolved(file) for file in request.jars],
        "job_files": [_resolved(file) for file in request.files],
        "job_archives": [_resolved(file) for file in request.archives],
        "job_class": request.main_class,
        "job_name": request.name,
        "job_environment": {
            "EPIC_TENANT": cluster.tenant,
            "EPIC_CLUSTER": cluster.name,
            "EPIC_NODE": job.node,
            **({"SPARK_CONF_DIR": CONNECTION_FOLDER.format(request.on)} if request.on else {}),
            **request.environment,
        },
    }
    inventory["all"]["vars"] |= literal(wanted)
    inventory["all"]["vars"]["job_timeout_seconds"] = request.timeout_seconds
    return inventory


def _resolved(file: str) -> str:
    return file if programs.is_inside(file) else str(Path(file).absolute())


def _digest(file: str) -> str:
    return "" if programs.is_inside(file) else hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _refuse_without_jupyter(cluster: ClusterRecord, node: Node, what: str) -> None:
    if "jupyter" not in cluster.spec.role(node.role).services:
        raise InputError(
            f"{cluster.name} runs no job of the kind {what}: {node.short_name} does not run "
            "JupyterLab, whose image can.",
            f"Launch a cluster whose {node.role} has `services: [jupyter]`.",
        )


def _check_inside(host: Host, cluster: ClusterRecord, node: Node, path: str) -> None:
    code, _ = docker_exec.output_of(host, node.container, ["test", "-f", path])
    if code:
        raise InputError(
            f"{path} is no file of {node.name}.",
            f"epic-run shell {cluster.name} -- ls -l {PurePosixPath(path).parent}",
        )
