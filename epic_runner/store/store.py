"""Reading and writing the store, in functions named after what happens."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from sqlalchemy import Column, Connection, delete, func, insert, select, update

from epic_runner.cluster import ClusterSpec, Node, split_name
from epic_runner.errors import InputError, NotFound
from epic_runner.store import schema
from epic_runner.store.database import database_url, exclusive, open_engine, reading
from epic_runner.store.records import (
    ActionRecord,
    ClusterRecord,
    HostRecord,
    NodeOutcome,
    OperationRecord,
    TenantRecord,
)

# Members' user ids start here: above Debian's and the site's own accounts on most hosts.
FIRST_UID = 20000


class Store:
    """The database, opened. Methods that change take part in a `transaction()`."""

    def __init__(self, url: str | None = None) -> None:
        self._engine = open_engine(url or database_url())

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
            TenantRecord(row.name, row.document, uids.get(row.name, {}), row.subnet) for row in rows
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
        known = self.tenant(name).uids
        following = max([*known.values(), FIRST_UID - 1]) + 1
        new = [m["user"] for m in document.get("members", []) if m["user"] not in known]
        for uid, user in enumerate(new, start=following):
            self._connection.execute(insert(schema.users).values(tenant=name, name=user, uid=uid))
        return self.tenant(name)

    def restore_tenant(self, tenant: TenantRecord) -> None:
        """Write back a tenant that was lost, with the user ids that its files have.

        A tenant that is known stays as it is, but for user ids of people it does not know.
        """
        known = {record.name: record for record in self.tenants()}.get(tenant.name)
        if known is None:
            self._connection.execute(
                insert(schema.tenants).values(
                    name=tenant.name, document=dict(tenant.document), created_at=time.time()
                )
            )
        have = dict(known.uids) if known else {}
        for user, uid in tenant.uids.items():
            if user not in have and uid not in have.values():
                self._connection.execute(
                    insert(schema.users).values(tenant=tenant.name, name=user, uid=uid)
                )

    def remove_tenant(self, name: str) -> None:
        """Forget a tenant and its members' user ids."""
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
        tenant, name = split_name(name, tenant)
        found = [cluster for cluster in self.clusters(tenant) if cluster.name == name]
        if not found:
            of = f" of tenant {tenant}" if tenant else ""
            raise NotFound(
                f"There is no cluster {name}{of}.",
                "epic-run list shows the clusters; epic-run repair finds clusters in Docker "
                "that the store has lost.",
            )
        if len(found) > 1:
            names = " and ".join(f"{cluster.tenant}/{name}" for cluster in found)
            raise InputError(f"{name} is not one cluster: there is {names}.", "Name the tenant.")
        return found[0]

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
        self._connection.execute(delete(schema.nodes).where(schema.nodes.c.cluster_id == key))
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
                }
            )
        )

    def set_action(
        self, key: str, nodes: Mapping[str, NodeOutcome] | None = None, **values: Any
    ) -> None:
        """Change columns of an action; of `nodes`, only what each of these has made of it."""
        if nodes:
            merged = {**self.action(key).nodes, **nodes}
            values["nodes"] = _outcomes(merged)
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
        column = schema.actions.c.id
        query = select(schema.actions).where(column.startswith(key, autoescape=True)).limit(2)
        found = [_action(row) for row in self._connection.execute(query)]
        exact = [action for action in found if action.id == key]
        if len(found) > 1 and not exact:
            raise InputError(f"More than one action begins with {key}.", "Give more of its id.")
        if not found:
            raise NotFound(f"There is no action {key}.", "epic-run action list CLUSTER shows them.")
        return (exact or found)[0]

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

    def count_operations(self) -> int:
        """Return how many operations are remembered."""
        return int(
            self._connection.execute(
                select(func.count()).select_from(schema.operations)
            ).scalar_one()
        )


def fit(column: Column[Any], text: str) -> str:
    """Return what a column can hold of a text that plays and programs gave.

    PostgreSQL refuses what is too long, and null characters, where SQLite takes everything; what
    is told of an operation must not be what makes it fail.
    """
    return text.replace("\0", "")[: getattr(column.type, "length", None)]


def _outcomes(nodes: Mapping[str, NodeOutcome]) -> dict[str, Any]:
    return {name: asdict(outcome) for name, outcome in nodes.items()}


def _action(row: Any) -> ActionRecord:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented name
    nodes = {
        name: NodeOutcome(**{**outcome, "cut": tuple(outcome["cut"])})
        for name, outcome in values["nodes"].items()
    }
    return ActionRecord(**{**values, "nodes": nodes})


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
