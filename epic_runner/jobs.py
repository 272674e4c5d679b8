"""Jobs: a program started on a cluster's node, followed to its end, cancelled.

A job lives in its node, in a folder under /data/jobs, and needs nobody outside to go on or to be
found again: `epic-job` in the node starts, follows, cancels and lists. The playbook submit.yml
starts it; following only reads. A job does not hold its cluster, which may grow meanwhile.
"""

from __future__ import annotations

import math
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from epic_runner import connections, docker_api, docker_exec
from epic_runner.cluster import Node
from epic_runner.errors import DockerUnavailable, EpicError, InputError, NotFound, OperationFailed
from epic_runner.hosts import Host
from epic_runner.inventory import cluster_inventory
from epic_runner.lifecycle import Context, acting_user
from epic_runner.operations import operation_directory
from epic_runner.runner import run_playbook
from epic_runner.secrets import cluster_secrets
from epic_runner.store import ClusterRecord, TenantRecord

# Files beginning so are inside the nodes: the tenant's storage, and the node's own volume.
INSIDE = ("/tenant/", "/data/")
KINDS = {
    ".py": "Python",
    ".jar": "Java and Scala",
    ".R": "R",
    ".r": "R",
    ".sh": "shell",
}
PY_FILE_KINDS = (".py", ".zip", ".egg")
# What is brought along with a job travels in memory; larger files belong in the tenant's storage.
LARGEST_BYTES = 64 * 2**20

# Spark's settings for a connected cluster, in every node; the role `spark` offers them.
CONNECTION_FOLDER = "/etc/spark/connections/{}"

# How long a follower tries to find its job again after the connection to Docker broke off.
RECONNECT_SECONDS = 60.0

# Exit codes of `epic-job`: there is no such job; it left no result.
_UNKNOWN, _VANISHED = 3, 125
# A follower's exit codes that may be its own and not the job's; from 128 on it was killed itself.
_DOUBTFUL = (_UNKNOWN, _VANISHED, *range(128, 256))

# Waits for a job whose start is under way, without forking, unless our side hangs up.
_FOLLOW = """
until [ -e "/data/jobs/$1/pid" ]; do read -rt 0.03; (($? > 128)) || exit 1; done
exec epic-job follow "$1" --from-start
"""

_CONF_KEY = re.compile(r"[A-Za-z][\w.-]*")
_VARIABLE = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class JobRequest:
    """What somebody wants to run.

    Attributes:
        file: A file of this machine, or of the nodes when it begins with /tenant/ or /data/.
        arguments: The program's arguments.
        conf: Spark's properties for this job.
        py_files: More Python files for the driver and the executors.
        main_class: The main class of a jar whose manifest names none.
        name: The application's name; the program's own choice if empty.
        environment: Variables that the program finds in its environment.
        on: The connected cluster whose workers it runs on; the cluster's own if empty.
    """

    file: str
    arguments: tuple[str, ...] = ()
    conf: Mapping[str, str] = field(default_factory=dict)
    py_files: tuple[str, ...] = ()
    main_class: str = ""
    name: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    on: str = ""


@dataclass(frozen=True)
class Job:
    """A job that was started.

    Attributes:
        id: Its id, which sorts by the time of its start.
        node: The node where its driver runs.
        user: The member as whom it runs.
        started_at: Seconds since the epoch.
    """

    id: str
    node: Node
    user: str
    started_at: float


def check(request: JobRequest) -> None:
    """Refuse what could not run, before anything is started.

    Raises:
        InputError: A file is missing, too large, of no known kind, or has another one's name; or
            a property or variable has an impossible name.
    """
    kind = PurePosixPath(request.file).suffix
    if kind not in KINDS:
        raise InputError(
            f"{request.file}: it is not clear how to run a file of this kind.",
            f"Known are {', '.join(f'{end} ({what})' for end, what in KINDS.items())}.",
        )
    for file in request.py_files:
        if PurePosixPath(file).suffix not in PY_FILE_KINDS:
            raise InputError(f"{file} is none of {', '.join(PY_FILE_KINDS)}.")
    brought = [file for file in (request.file, *request.py_files) if not file.startswith(INSIDE)]
    for file in brought:
        _check_file(Path(file))
    names = [Path(file).name for file in brought]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"Two files of the job are called {name}.", "Rename one of them.")
    _check_names(request.conf, _CONF_KEY, "a Spark property")
    _check_names(request.environment, _VARIABLE, "an environment variable")


def _check_names(names: Iterable[str], pattern: re.Pattern[str], what: str) -> None:
    for name in names:
        if not pattern.fullmatch(name):
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


def _refuse_elsewhere(cluster: ClusterRecord, on: str, clusters: Iterable[ClusterRecord]) -> None:
    """Raise InputError unless a cluster is connected to one that runs."""
    if on not in cluster.spec.connections:
        names = ", ".join(cluster.spec.connections)
        raise InputError(
            f"{cluster.name} is not connected with {on}.",
            f"It is connected with {names}."
            if names
            else f"Add `connections: {{clusters: [{on}]}}` to its template, and launch it again.",
        )
    there = {item.name: item for item in connections.connected(cluster.spec, clusters)}
    if on not in there:
        raise InputError(f"The connected cluster {on} is gone.", f"Launch {on} again.")
    refuse_stopped(there[on])


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


def start(
    context: Context,
    name: str,
    request: JobRequest,
    *,
    tenant: str | None = None,
    user: str | None = None,
    announce: Callable[[Job], None] = lambda _job: None,
) -> Job:
    """Start a job on a running cluster, in the background of its submitting node.

    Args:
        context: The store and the hosts.
        name: The cluster.
        request: What to run.
        tenant: The cluster's tenant, where the name needs it.
        user: As which member; the tenant's first administrator by default.
        announce: Called just before the job is started, so that the caller can follow it from its
            first moment, and cancel it whenever it is interrupted.

    Raises:
        InputError: The request, the user or the cluster's state does not allow it.
        OperationFailed: A node that should run does not, or the job could not be started.
    """
    check(request)
    with context.store.read() as transaction:
        cluster = transaction.find_cluster(name, tenant)
        owner = transaction.tenant(cluster.tenant)
    refuse_stopped(cluster)
    if request.on:
        with context.store.read() as transaction:
            _refuse_elsewhere(cluster, request.on, transaction.clusters())
    acting = acting_user(owner, user)
    node = submitting_node(cluster)
    refuse_dead(context.hosts[node.host], cluster, node)
    if PurePosixPath(request.file).suffix in (".R", ".r"):
        _refuse_without_r(cluster, node)
    if request.file.startswith(INSIDE):
        _check_inside(context.hosts[node.host], cluster, node, request.file)
    now = time.time()
    job = Job(
        time.strftime("%Y%m%d-%H%M%S-", time.gmtime(now)) + uuid.uuid4().hex[:8], node, acting, now
    )
    announce(job)
    directory = operation_directory(job.id)
    run_playbook(
        "submit",
        job_inventory(context, cluster, owner, job, request),
        directory,
        operation=job.id,
        listener=lambda _step: None,
    )
    # A job that was started is its node's; the traces of the start are of use only when it failed.
    shutil.rmtree(directory, ignore_errors=True)
    return job


def job_inventory(
    context: Context,
    cluster: ClusterRecord,
    tenant: TenantRecord,
    job: Job,
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
        "job_node": job.node.short_name,
        "job_file": _resolved(request.file),
        "job_arguments": list(request.arguments),
        "job_conf": dict(request.conf),
        "job_py_files": [_resolved(file) for file in request.py_files],
        "job_class": request.main_class,
        "job_name": request.name,
        "job_environment": {
            "EPIC_TENANT": cluster.tenant,
            "EPIC_CLUSTER": cluster.name,
            "EPIC_NODE": job.node.short_name,
            **({"SPARK_CONF_DIR": CONNECTION_FOLDER.format(request.on)} if request.on else {}),
            **request.environment,
        },
    }
    inventory["all"]["vars"] |= literal(wanted)
    return inventory


def literal(value: Any) -> Any:
    """Return data whose texts Ansible takes as they are, never as templates.

    Arguments of jobs may hold braces, and no member of a tenant may run Jinja on the controller.
    """
    if isinstance(value, str):
        return {"__ansible_unsafe": value}
    if isinstance(value, Mapping):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [literal(item) for item in value]
    return value


def follow(host: Host, job: Job, write: docker_exec.Write) -> int:
    """Pass on a job's output from its beginning, until it ends; return its exit code.

    The job may still be starting, so that its first line is seen when it is printed and not when
    Ansible has tidied up. A connection to Docker that breaks off is made again, and the output
    goes on where it stopped.

    Raises:
        OperationFailed: The job vanished without a result: its node was stopped, say.
        DockerUnavailable: Docker stayed away.
    """
    seen = _Counted(write)
    command = ["bash", "-c", _FOLLOW, "bash", job.id]
    silent_since = math.inf
    while True:
        before = seen.count
        try:
            seen.rewind()
            code = docker_exec.stream(host, job.node.container, command, seen.write, hold=True)
        except DockerUnavailable:
            now = time.monotonic()
            silent_since = now if seen.count > before else min(silent_since, now)
            if now - silent_since > RECONNECT_SECONDS:
                raise
            time.sleep(0.5)
            continue
        except EpicError:
            code = _VANISHED  # there is no container any more, or it has stopped
        if code not in _DOUBTFUL:
            return code
        own = result(host, job)
        if own is None:
            raise OperationFailed(
                f"The job {job.id} is gone without a result: was {job.node.name} stopped?"
            )
        return own


class _Counted:
    """Passes output on, but not a second time what a stream before this one brought already."""

    def __init__(self, write: docker_exec.Write) -> None:
        self._write = write
        self._seen = {False: 0, True: 0}
        self._skip = {False: 0, True: 0}

    @property
    def count(self) -> int:
        return sum(self._seen.values())

    def rewind(self) -> None:
        self._skip = dict(self._seen)

    def write(self, data: bytes, is_error: bool) -> None:  # noqa: FBT001 - the callback's form
        skipped = min(self._skip[is_error], len(data))
        self._skip[is_error] -= skipped
        if rest := data[skipped:]:
            self._seen[is_error] += len(rest)
            self._write(rest, is_error)


def result(host: Host, job: Job) -> int | None:
    """Return the exit code that a job left; None while it runs, or when it left none."""
    text = docker_api.read_file(host, job.node.container, f"/data/jobs/{job.id}/rc") or b""
    return int(text) if text.strip().isdigit() else None


def cancel(host: Host, job: Job, *, patience_seconds: float = 2.0) -> None:
    """End a job with all its processes: TERM, and KILL five seconds later.

    A start that was cut off may reach the node a moment later: for so long an unknown job is
    looked for.

    Raises:
        EpicError: The job could not be ended.
    """
    end = time.monotonic() + patience_seconds
    while True:
        code, text = docker_exec.output_of(host, job.node.container, ["epic-job", "cancel", job.id])
        if code == 0:
            return
        if code != _UNKNOWN:
            raise OperationFailed(f"The job {job.id} could not be cancelled: {text.strip()}")
        if time.monotonic() > end:
            return
        time.sleep(0.2)


def _resolved(file: str) -> str:
    return file if file.startswith(INSIDE) else str(Path(file).absolute())


def _refuse_without_r(cluster: ClusterRecord, node: Node) -> None:
    if "jupyter" not in cluster.spec.role(node.role).services:
        raise InputError(
            f"{cluster.name} has no R: {node.short_name} does not run JupyterLab, whose image "
            "has it.",
            f"Launch a cluster whose {node.role} has `services: [jupyter]`.",
        )


def _check_inside(host: Host, cluster: ClusterRecord, node: Node, path: str) -> None:
    code, _ = docker_exec.output_of(host, node.container, ["test", "-f", path])
    if code:
        raise InputError(
            f"{path} is no file of {node.name}.",
            f"epic-run shell {cluster.name} -- ls -l {PurePosixPath(path).parent}",
        )
