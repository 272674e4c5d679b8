"""Reading and writing the store, in functions named after what happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, Table, delete, func, insert, select, update

from epic_runner.cluster import ClusterSpec, DeclaredAction, Node, split_name
from epic_runner.errors import InputError, NotFound
from epic_runner.store import schema
from epic_runner.store.database import (
    database_url,
    exclusive,
    existing_engine,
    open_engine,
    reading,
)
from epic_runner.store.records import (
    ActionRecord,
    ClusterRecord,
    DeclaredHistory,
    DeclaredRun,
    HostRecord,
    JobRecord,
    NodeOutcome,
    OperationRecord,
    RunRecord,
    ScheduleRecord,
    TenantRecord,
    Timing,
    UseRecord,
)

# Members' user ids start here: above Debian's and the site's own accounts on most hosts.
FIRST_UID = 20000

Named = TypeVar("Named", ClusterRecord, ScheduleRecord)


class Store:
    """The database, opened. Methods that change take part in a `transaction()`.

    With `as_it_is` nothing is made or brought up to date for it: StoreUnavailable is raised where
    there is no store, or one of another version.
    """

    def __init__(self, url: str | None = None, *, as_it_is: bool = False) -> None:
        self._engine = existing_engine(url) if as_it_is else open_engine(url or database_url())

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Read and write while no other controller writes; all of it happens or none."""
        with exclusive(self._engine) as connection:
            yield Transaction(connection)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Read a consistent state without keeping anybody from writing."""
        with reading(self._engine) as connection:
            yield Transaction(connection)

    def close(self) -> None:
        """Give the database's connections back."""
        self._engine.dispose()


class Transaction:
    """What can be read and written within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # -- tenants and flavors ---------------------------------------------------------------

    def tenants(self) -> list[TenantRecord]:
        """Return all tenants by name."""
        uids: dict[str, dict[str, int]] = {}
        for row in self._connection.execute(select(schema.users)):
            uids.setdefault(row.tenant, {})[row.name] = row.uid
        rows = self._connection.execute(select(schema.tenants).order_by(schema.tenants.c.name))
        return [
            TenantRecord(row.name, row.document, uids.get(row.name, {}), row.subnet, row.created_at)
            for row in rows
        ]

    def tenant(self, name: str) -> TenantRecord:
        """Return one tenant.

        Raises:
            NotFound: There is none of this name.
        """
        for tenant in self.tenants():
            if tenant.name == name:
                return tenant
        raise NotFound(
            f"There is no tenant {name}.",
            "epic-run tenant list shows the tenants; a Tenant document in the launched file "
            "makes one.",
        )

    def apply_tenant(self, document: Mapping[str, Any]) -> TenantRecord:
        """Write a tenant as wanted, and give each new member a user id.

        Raises:
            InputError: A member who owns a cluster would leave.
        """
        name = document["name"]
        members = {member["user"] for member in document.get("members", [])}
        for cluster in self.clusters(name):
            if cluster.owner not in members:
                raise InputError(
                    f"{cluster.owner} owns the cluster {cluster.name} of tenant {name} and must "
                    "stay one of its members.",
                    f"Keep {cluster.owner} among the members, or epic-run destroy "
                    f"{name}/{cluster.name} first.",
                )
        table = schema.tenants
        if self._connection.execute(select(table.c.name).where(table.c.name == name)).first():
            self._connection.execute(
                update(table).where(table.c.name == name).values(document=dict(document))
            )
        else:
            self._connection.execute(
                insert(table).values(name=name, document=dict(document), created_at=time.time())
            )
        for user, uid in new_uids(document, self.tenant(name).uids).items():
            self._connection.execute(insert(schema.users).values(tenant=name, name=user, uid=uid))
        return self.tenant(name)

    def restore_tenant(self, tenant: TenantRecord) -> None:
        """Write back a tenant that was lost, with the user ids that its files have.

        A tenant that is known stays as it is, but for user ids of people it does not know, and for
        its addresses where it has none.
        """
        known = {record.name: record for record in self.tenants()}.get(tenant.name)
        if known is None:
            self._connection.execute(
                insert(schema.tenants).values(
                    name=tenant.name, document=dict(tenant.document), created_at=time.time()
                )
            )
        if tenant.subnet and not (known and known.subnet):
            self.set_subnet(tenant.name, tenant.subnet)
        have = dict(known.uids) if known else {}
        for user, uid in tenant.uids.items():
            if user not in have and uid not in have.values():
                self._connection.execute(
                    insert(schema.users).values(tenant=tenant.name, name=user, uid=uid)
                )

    def remove_tenant(self, name: str) -> None:
        """Forget a tenant: its members' user ids, its schedules, and what was run in it.

        Another one of its name would run the schedules and read the rest. Operations stay: they
        tell what became of hosts, and that the tenant was removed.
        """
        own = (
            schema.schedule_files, schema.schedule_runs, schema.schedules, schema.jobs,
            schema.actions,
        )  # fmt: skip
        for table in own:
            self._connection.execute(delete(table).where(table.c.tenant == name))
        self._connection.execute(delete(schema.users).where(schema.users.c.tenant == name))
        self._connection.execute(delete(schema.tenants).where(schema.tenants.c.name == name))

    def set_subnet(self, name: str, subnet: str) -> None:
        """Give a tenant its part of the site's addresses."""
        table = schema.tenants
        self._connection.execute(update(table).where(table.c.name == name).values(subnet=subnet))

    # -- hosts -----------------------------------------------------------------------------

    def hosts(self) -> dict[str, HostRecord]:
        """Return what is remembered of hosts, by name."""
        rows = self._connection.execute(select(schema.hosts))
        return {
            row.name: HostRecord(row.name, row.facts, row.checked_at, row.draining) for row in rows
        }

    def put_host(self, host: HostRecord) -> None:
        """Remember a host as it is now."""
        self.forget_host(host.name)
        self._connection.execute(insert(schema.hosts).values(**vars(host)))

    def forget_host(self, name: str) -> None:
        """Forget a host."""
        self._connection.execute(delete(schema.hosts).where(schema.hosts.c.name == name))

    def flavors(self) -> dict[str, dict[str, Any]]:
        """Return the flavors that were applied, by name."""
        return {row.name: row.document for row in self._connection.execute(select(schema.flavors))}

    def apply_flavor(self, document: Mapping[str, Any]) -> None:
        """Write a flavor; clusters that were launched with it keep their size."""
        table = schema.flavors
        self._connection.execute(delete(table).where(table.c.name == document["name"]))
        self._connection.execute(
            insert(table).values(name=document["name"], document=dict(document))
        )

    # -- clusters --------------------------------------------------------------------------

    def clusters(self, tenant: str | None = None) -> list[ClusterRecord]:
        """Return all clusters, or a tenant's, by tenant and name."""
        table = schema.clusters
        query = select(table).order_by(table.c.tenant, table.c.name)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        rows = list(self._connection.execute(query))
        nodes: dict[int, list[Any]] = {}
        for node in self._connection.execute(select(schema.nodes)):
            nodes.setdefault(node.cluster_id, []).append(node)
        return [_cluster(row, nodes.get(row.id, [])) for row in rows]

    def find_cluster(self, name: str, tenant: str | None = None) -> ClusterRecord:
        """Return the cluster that `name`, or `TENANT/NAME`, means.

        Raises:
            NotFound: There is no such cluster.
            InputError: Several tenants have one of this name.
        """
        hint = (
            "epic-run list shows the clusters; epic-run repair finds clusters in Docker that the "
            "store has lost."
        )
        return _the_one("cluster", self.clusters, name, tenant, hint)

    def add_cluster(self, spec: ClusterSpec, owner: str, nodes: Iterable[Node]) -> int:
        """Record a wanted cluster with its nodes; return its key."""
        result = self._connection.execute(
            insert(schema.clusters).values(
                tenant=spec.tenant,
                name=spec.name,
                owner=owner,
                wanted="running",
                spec=spec.as_dict(),
                created_at=time.time(),
            )
        )
        key = int(result.inserted_primary_key[0])  # type: ignore[index]
        self.add_nodes(key, nodes)
        return key

    def set_cluster(
        self, key: int, *, wanted: str | None = None, spec: ClusterSpec | None = None
    ) -> None:
        """Change what is wanted of a cluster."""
        values: dict[str, Any] = {}
        if wanted is not None:
            values["wanted"] = wanted
        if spec is not None:
            values["spec"] = spec.as_dict()
        self._connection.execute(
            update(schema.clusters).where(schema.clusters.c.id == key).values(**values)
        )

    def remove_cluster(self, key: int) -> None:
        """Forget a cluster and its nodes; what it used of the quota is free again."""
        for table in (schema.nodes, schema.lifetimes, schema.declared_actions):
            self._connection.execute(delete(table).where(table.c.cluster_id == key))
        self._connection.execute(delete(schema.clusters).where(schema.clusters.c.id == key))

    def add_nodes(self, key: int, nodes: Iterable[Node]) -> None:
        """Record nodes that a cluster is to have."""
        rows = [
            {
                "cluster_id": key,
                "role": node.role,
                "index": node.index,
                "host": node.host,
                "ports": dict(node.ports),
                "wanted": "running",
                "address": node.address,
            }
            for node in nodes
        ]
        if rows:
            self._connection.execute(insert(schema.nodes), rows)

    def set_ports(self, key: int, nodes: Iterable[Node]) -> None:
        """Record the ports that nodes now have."""
        for node in nodes:
            self._connection.execute(
                update(schema.nodes).where(*_is(key, node)).values(ports=dict(node.ports))
            )

    def move_node(self, key: int, node: Node) -> None:
        """Record that a node is to be on another host, with other ports."""
        self._connection.execute(
            update(schema.nodes)
            .where(*_is(key, node))
            .values(host=node.host, ports=dict(node.ports))
        )

    def set_leaving(self, key: int, nodes: Iterable[Node]) -> None:
        """Mark nodes as on their way out."""
        for node in nodes:
            self._connection.execute(
                update(schema.nodes).where(*_is(key, node)).values(wanted="absent")
            )

    def remove_nodes(self, key: int, nodes: Iterable[Node]) -> None:
        """Forget nodes that are gone."""
        for node in nodes:
            self._connection.execute(delete(schema.nodes).where(*_is(key, node)))

    def set_lost(self, key: int, nodes: Iterable[Node]) -> None:
        """Mark nodes as gone with their host: what is left of them may come back with it."""
        for node in nodes:
            self._connection.execute(
                update(schema.nodes).where(*_is(key, node)).values(wanted="lost")
            )

    def forget_lost(self, key: int, host: str) -> None:
        """Forget the lost nodes of a host: nothing of them is left, or will come back."""
        columns = schema.nodes.c
        self._connection.execute(
            delete(schema.nodes).where(
                columns.cluster_id == key, columns.host == host, columns.wanted == "lost"
            )
        )

    # -- the use of clusters ---------------------------------------------------------------

    def uses(self) -> dict[int, UseRecord]:
        """Return what is remembered of the use of clusters, by the clusters' keys."""
        columns = [column for column in schema.lifetimes.c if column.name != "cluster_id"]
        return {
            row.cluster_id: UseRecord(**{item.name: getattr(row, item.name) for item in columns})
            for row in self._connection.execute(select(schema.lifetimes))
        }

    def put_use(self, key: int, use: UseRecord) -> None:
        """Remember a cluster's use as it is now known."""
        table = schema.lifetimes
        values = {**vars(use), "activity": fit(table.c.activity, use.activity)}
        self._connection.execute(delete(table).where(table.c.cluster_id == key))
        self._connection.execute(insert(table).values(cluster_id=key, **values))

    def last_operations(self, verbs: Iterable[str]) -> dict[tuple[str, str], float]:
        """Return when operations of some verbs last were at work, by tenant and cluster."""
        columns = schema.operations.c
        # Of one that runs, or whose controller died, its last sign of life.
        at = func.max(func.coalesce(columns.ended_at, columns.heartbeat_at))
        query = (
            select(columns.tenant, columns.cluster, at)
            .where(columns.verb.in_(list(verbs)))
            .group_by(columns.tenant, columns.cluster)
        )
        return {(row[0], row[1]): row[2] for row in self._connection.execute(query)}

    def last_starts(self) -> dict[tuple[str, str], float]:
        """Return when clusters were last brought up, by tenant and name.

        That is by `start` and `restart`, and by the first launch or repair behind a stop: another
        launch of what runs begins nothing anew.
        """
        columns = schema.operations.c
        at = func.coalesce(columns.ended_at, columns.heartbeat_at)
        stops = (
            select(columns.tenant, columns.cluster, func.max(at).label("at"))
            .where(columns.verb == "stop")
            .group_by(columns.tenant, columns.cluster)
            .subquery()
        )
        first_behind = (
            select(columns.tenant, columns.cluster, func.min(at))
            .join(stops, (columns.tenant == stops.c.tenant) & (columns.cluster == stops.c.cluster))
            .where(columns.verb.in_(["launch", "repair", "start"]), at > stops.c.at)
            .group_by(columns.tenant, columns.cluster)
        )
        found = self.last_operations(["start", "restart"])
        for tenant, cluster, moment in self._connection.execute(first_behind):
            found[tenant, cluster] = max(found.get((tenant, cluster), 0.0), moment)
        return found

    # -- operations ------------------------------------------------------------------------

    def add_operation(self, operation: OperationRecord) -> None:
        """Record an operation that begins."""
        self._connection.execute(insert(schema.operations).values(**vars(operation)))

    def set_operation(self, key: str, **values: Any) -> None:
        """Change columns of an operation."""
        fitting = {
            name: fit(schema.operations.c[name], value) if isinstance(value, str) else value
            for name, value in values.items()
        }
        self._connection.execute(
            update(schema.operations).where(schema.operations.c.id == key).values(**fitting)
        )

    def operations(
        self, tenant: str | None = None, cluster: str | None = None, limit: int = 50
    ) -> list[OperationRecord]:
        """Return operations, the newest first."""
        table = schema.operations
        query = select(table).order_by(table.c.started_at.desc()).limit(limit)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        if cluster is not None:
            query = query.where(table.c.cluster == cluster)
        return [OperationRecord(**row._mapping) for row in self._connection.execute(query)]  # noqa: SLF001 - SQLAlchemy's documented name

    def add_event(self, operation: str, phase: str, node: str, message: str) -> None:
        """Record one step of an operation, for whoever watches it."""
        columns = schema.events.c
        self._connection.execute(
            insert(schema.events).values(
                operation=operation,
                at=time.time(),
                phase=fit(columns.phase, phase),
                node=fit(columns.node, node),
                message=fit(columns.message, message),
            )
        )

    def events(self, operation: str, after: int = 0) -> list[Mapping[str, Any]]:
        """Return an operation's events numbered above `after`, in their order."""
        table = schema.events
        query = (
            select(table)
            .where(table.c.operation == operation, table.c.number > after)
            .order_by(table.c.number)
        )
        return [dict(row._mapping) for row in self._connection.execute(query)]  # noqa: SLF001 - SQLAlchemy's documented name

    # -- actions ---------------------------------------------------------------------------

    def add_action(self, action: ActionRecord) -> None:
        """Record an action."""
        self._connection.execute(
            insert(schema.actions).values(
                **{
                    **vars(action),
                    "name": fit(schema.actions.c.name, action.name),
                    "options": dict(action.options),
                    "nodes": _outcomes(action.nodes),
                    "containers": action.containers and dict(action.containers),
                }
            )
        )

    def set_action(
        self, key: str, nodes: Mapping[str, NodeOutcome] | None = None, **values: Any
    ) -> None:
        """Change columns of an action; of `nodes`, only what each of these has made of it.

        What is cancelled stays so: its driver sees processes end by a signal, and not by whom.
        """
        if nodes:
            had = self.action(key).nodes
            kept = {name: outcome for name, outcome in had.items() if outcome.state == "cancelled"}
            values["nodes"] = _outcomes({**had, **nodes, **kept})
        if values:
            self._connection.execute(
                update(schema.actions).where(schema.actions.c.id == key).values(**values)
            )

    def action(self, key: str) -> ActionRecord:
        """Return an action by its id, or by a beginning of it that no other one has.

        Raises:
            NotFound: There is none.
            InputError: Several begin so.
        """
        return _action(self._begun(schema.actions, key, "action"))

    def actions(
        self, tenant: str, cluster: str, *, limit: int | None = None, state: str | None = None
    ) -> list[ActionRecord]:
        """Return the actions of a cluster, the newest first."""
        table = schema.actions
        query = (
            select(table)
            .where(table.c.tenant == tenant, table.c.cluster == cluster)
            .order_by(table.c.started_at.desc())
            .limit(limit)
        )
        if state is not None:
            query = query.where(table.c.state == state)
        return [_action(row) for row in self._connection.execute(query)]

    # -- schedules -------------------------------------------------------------------------

    def put_schedule(self, schedule: ScheduleRecord, files: Mapping[str, bytes]) -> None:
        """Record a schedule with the files of its job, in place of one of its name."""
        self._forget_schedule(schedule.tenant, schedule.name)
        values = {name: value for name, value in vars(schedule).items() if name != "timing"}
        values |= {"settings": asdict(schedule.timing), "documents": list(schedule.documents)}
        self._connection.execute(insert(schema.schedules).values(**values))
        rows = [
            {"tenant": schedule.tenant, "schedule": schedule.name, "name": name, "content": content}
            for name, content in files.items()
        ]
        if rows:
            self._connection.execute(insert(schema.schedule_files), rows)

    def schedules(self, tenant: str | None = None) -> list[ScheduleRecord]:
        """Return all schedules, or a tenant's, by tenant and name."""
        table = schema.schedules
        query = select(table).order_by(table.c.tenant, table.c.name)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        return [_schedule(row) for row in self._connection.execute(query)]

    def find_schedule(self, name: str, tenant: str | None = None) -> ScheduleRecord:
        """Return the schedule that `name`, or `TENANT/NAME`, means.

        Raises:
            NotFound: There is no such schedule.
            InputError: Several tenants have one of this name.
        """
        hint = "epic-run schedule list shows the schedules."
        return _the_one("schedule", self.schedules, name, tenant, hint)

    def schedule_files(self, tenant: str, name: str) -> dict[str, bytes]:
        """Return the files that a schedule's job brings along, by name."""
        table = schema.schedule_files
        rows = self._connection.execute(
            select(table).where(table.c.tenant == tenant, table.c.schedule == name)
        )
        return {row.name: row.content for row in rows}

    def set_schedule(self, tenant: str, name: str, **values: Any) -> None:
        """Change columns of a schedule."""
        table = schema.schedules
        self._connection.execute(
            update(table).where(table.c.tenant == tenant, table.c.name == name).values(**values)
        )

    def remove_schedule(self, tenant: str, name: str) -> None:
        """Forget a schedule and its runs."""
        self._forget_schedule(tenant, name)
        table = schema.schedule_runs
        self._connection.execute(
            delete(table).where(table.c.tenant == tenant, table.c.schedule == name)
        )

    def _forget_schedule(self, tenant: str, name: str) -> None:
        files, table = schema.schedule_files, schema.schedules
        self._connection.execute(
            delete(files).where(files.c.tenant == tenant, files.c.schedule == name)
        )
        self._connection.execute(
            delete(table).where(table.c.tenant == tenant, table.c.name == name)
        )

    def add_run(self, run: RunRecord) -> None:
        """Record a run."""
        self._connection.execute(insert(schema.schedule_runs).values(**vars(run)))

    def set_run(self, key: str, **values: Any) -> None:
        """Change columns of a run."""
        table = schema.schedule_runs
        self._connection.execute(update(table).where(table.c.id == key).values(**values))

    def run(self, key: str) -> RunRecord:
        """Return a run by its id; raises NotFound."""
        table = schema.schedule_runs
        row = self._connection.execute(select(table).where(table.c.id == key)).first()
        if row is None:
            raise NotFound(f"There is no run {key}.", "epic-run schedule show NAME lists its runs.")
        return RunRecord(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented name

    def runs(
        self, tenant: str, schedule: str, *, limit: int | None = None, is_open: bool = False
    ) -> list[RunRecord]:
        """Return the runs of a schedule, the newest first: all, or those that are not over."""
        table = schema.schedule_runs
        query = (
            select(table)
            .where(table.c.tenant == tenant, table.c.schedule == schedule)
            .order_by(table.c.planned_at.desc(), table.c.id.desc())
            .limit(limit)
        )
        if is_open:
            query = query.where(table.c.state.in_(["waiting", "running"]))
        return [RunRecord(**row._mapping) for row in self._connection.execute(query)]  # noqa: SLF001 - SQLAlchemy's documented name

    def forget_runs(self, keys: Iterable[str]) -> None:
        """Forget runs."""
        table = schema.schedule_runs
        self._connection.execute(delete(table).where(table.c.id.in_(list(keys))))

    # -- jobs ------------------------------------------------------------------------------

    def add_job(self, job: JobRecord) -> None:
        """Record a job."""
        values = {**vars(job), "name": fit(schema.jobs.c.name, job.name)}
        self._connection.execute(insert(schema.jobs).values(**_as_json(values)))

    def set_job(self, key: str, **values: Any) -> None:
        """Change columns of a job."""
        self._connection.execute(
            update(schema.jobs).where(schema.jobs.c.id == key).values(**_as_json(values))
        )

    def job(self, key: str) -> JobRecord:
        """Return a job by its id, or by a beginning of it that no other one has.

        Raises:
            NotFound: There is none.
            InputError: Several begin so.
        """
        return _job(self._begun(schema.jobs, key, "job"))

    def jobs(
        self,
        tenant: str | None = None,
        cluster: str | None = None,
        *,
        limit: int | None = None,
        only_unsettled: bool = False,
    ) -> list[JobRecord]:
        """Return jobs, the newest first."""
        table = schema.jobs
        query = select(table).order_by(table.c.started_at.desc()).limit(limit)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        if cluster is not None:
            query = query.where(table.c.cluster == cluster)
        if only_unsettled:
            query = query.where(table.c.is_settled.is_(False))
        return [_job(row) for row in self._connection.execute(query)]

    def _begun(self, table: Table, key: str, what: str) -> Any:
        """Return the row whose id is `key`, or the only one whose id begins so."""
        of = " CLUSTER" if what == "action" else ""
        query = select(table).where(table.c.id.startswith(key, autoescape=True)).limit(2)
        found = list(self._connection.execute(query))
        exact = [row for row in found if row.id == key]
        if len(found) > 1 and not exact:
            raise InputError(f"More than one {what} begins with {key}.", "Give more of its id.")
        if not found:
            raise NotFound(f"There is no {what} {key}.", f"epic-run {what} list{of} shows them.")
        return (exact or found)[0]

    # -- declared actions ------------------------------------------------------------------

    def declare(self, cluster: ClusterRecord, actions: Iterable[DeclaredAction]) -> None:
        """Keep the scripts of the actions that a cluster's template declares, and no others.

        Since when nodes have had those that were declared before, stays.
        """
        table = schema.declared_actions
        wanted = {action.key: action.script for action in actions}
        have = self._declared(cluster.id)
        of_cluster = table.c.cluster_id == cluster.id
        for key in have.keys() - wanted.keys():
            self._connection.execute(delete(table).where(of_cluster, table.c.key == key))
        for key in wanted.keys() - have.keys():
            self._connection.execute(
                insert(table).values(cluster_id=cluster.id, key=key, script=wanted[key])
            )

    def _declared(self, cluster: int) -> dict[str, float | None]:
        columns = schema.declared_actions.c
        query = select(columns.key, columns.done_at).where(columns.cluster_id == cluster)
        return {row.key: row.done_at for row in self._connection.execute(query)}

    def declared_scripts(self, cluster: int) -> dict[str, bytes]:
        """Return the scripts of a cluster's declared actions, by key."""
        table = schema.declared_actions
        rows = self._connection.execute(select(table).where(table.c.cluster_id == cluster))
        return {row.key: row.script for row in rows}

    def set_declared_done(self, cluster: int, key: str) -> None:
        """Record that all nodes of a cluster have had a declared action."""
        table = schema.declared_actions
        self._connection.execute(
            update(table)
            .where(table.c.cluster_id == cluster, table.c.key == key)
            .values(done_at=time.time())
        )

    def declared_history(self, cluster: ClusterRecord) -> DeclaredHistory:
        """Return what was run of the actions that a cluster's template declares."""
        if not cluster.spec.actions:
            return DeclaredHistory()
        columns = schema.actions.c
        query = (
            select(
                columns.id, columns.declared, columns.nodes, columns.containers, columns.started_at
            )
            .where(
                columns.tenant == cluster.tenant,
                columns.cluster == cluster.name,
                columns.declared != "",
                columns.state != "refused",
                # Those of an earlier cluster of this name are over and gone.
                columns.started_at >= cluster.created_at,
            )
            .order_by(columns.started_at)
        )
        runs = tuple(
            DeclaredRun(
                row.id,
                row.declared,
                _read_outcomes(row.nodes),
                row.containers or {},
                row.started_at,
            )
            for row in self._connection.execute(query)
        )
        done = {key for key, at in self._declared(cluster.id).items() if at is not None}
        return DeclaredHistory(runs, frozenset(done))

    def count_operations(self) -> int:
        """Return how many operations are remembered."""
        return int(
            self._connection.execute(
                select(func.count()).select_from(schema.operations)
            ).scalar_one()
        )


def new_uids(document: Mapping[str, Any], known: Mapping[str, int]) -> dict[str, int]:
    """Return the user ids that members of a Tenant document get who have none yet."""
    new = [item["user"] for item in document.get("members", []) if item["user"] not in known]
    return {user: uid for uid, user in enumerate(new, max([*known.values(), FIRST_UID - 1]) + 1)}


def fit(column: Column[Any], text: str) -> str:
    """Return what a column can hold of a text that plays and programs gave.

    PostgreSQL refuses what is too long, and null characters, where SQLite takes everything; what
    is told of an operation must not be what makes it fail.
    """
    return text.replace("\0", "")[: getattr(column.type, "length", None)]


def _the_one(
    kind: str, of_tenant: Callable[[str | None], list[Named]], name: str, tenant: str | None,
    hint: str,
) -> Named:  # fmt: skip
    """Return the one thing of a kind that `name`, or `TENANT/NAME`, means; `hint` lists them."""
    tenant, name = split_name(name, tenant)
    found = [item for item in of_tenant(tenant) if item.name == name]
    if not found:
        of = f" of tenant {tenant}" if tenant else ""
        raise NotFound(f"There is no {kind} {name}{of}.", hint)
    if len(found) > 1:
        names = " and ".join(f"{item.tenant}/{name}" for item in found)
        raise InputError(f"{name} is not one {kind}: there is {names}.", "Name the tenant.")
    return found[0]


def _outcomes(nodes: Mapping[str, NodeOutcome]) -> dict[str, Any]:
    return {name: asdict(outcome) for name, outcome in nodes.items()}


def _action(row: Any) -> ActionRecord:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented name
    return ActionRecord(**{**values, "nodes": _read_outcomes(values["nodes"])})


def _read_outcomes(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, NodeOutcome]:
    return {
        name: NodeOutcome(**{**outcome, "cut": tuple(outcome["cut"])})
        for name, outcome in nodes.items()
    }


def _schedule(row: Any) -> ScheduleRecord:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented name
    timing = Timing(**values.pop("settings"))
    return ScheduleRecord(**{**values, "timing": timing, "documents": tuple(values["documents"])})


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON columns take them."""
    return {
        name: dict(value)
        if isinstance(value, Mapping)
        else (list(value) if isinstance(value, tuple) else value)
        for name, value in values.items()
    }


def _job(row: Any) -> JobRecord:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented name
    lists = {name: tuple(values[name]) for name in ("cut", "applications")}
    return JobRecord(**{**values, **lists})


def _is(key: int, node: Node) -> tuple[Any, ...]:
    columns = schema.nodes.c
    return columns.cluster_id == key, columns.role == node.role, columns.index == node.index


def _cluster(row: Any, node_rows: Iterable[Any]) -> ClusterRecord:
    spec = ClusterSpec.from_dict(row.spec)
    order = {role.name: position for position, role in enumerate(spec.roles)}
    rows = sorted(node_rows, key=lambda node: (order.get(node.role, len(order)), node.index))
    nodes = [
        Node(spec.name, spec.tenant, node.role, node.index, node.host, node.ports, node.address)
        for node in rows
    ]
    by_wish: dict[str, list[Node]] = {}
    for node, stored in zip(nodes, rows, strict=True):
        by_wish.setdefault(stored.wanted, []).append(node)
    lost = by_wish.get("lost", [])
    return ClusterRecord(
        row.id, spec, row.owner, row.wanted,
        tuple(node for node in nodes if node not in lost),
        leaving=frozenset(node.short_name for node in by_wish.get("absent", [])),
        created_at=row.created_at,
        lost=tuple(lost),
    )  # fmt: skip
