"""`epic-run action`."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from epic_runner.cli import completing
from epic_runner.cli.common import (
    COLOURS,
    FIRST_ADMIN,
    as_option,
    env_option,
    node_of,
    seconds_of,
    tenant_option,
    timeout_option,
    when,
)
from epic_runner.cli.words import WithArguments, pairs
from epic_runner.cluster import Node
from epic_runner.docker_exec import Write
from epic_runner.errors import EpicError, InputError, OperationFailed
from epic_runner.lifecycle import Context
from epic_runner.operations import operation_directory
from epic_runner.output import emit, output_option, shortened, table
from epic_runner.processes import CANCELLED, detached, join
from epic_runner.resources import private_directory
from epic_runner.site import site_hosts
from epic_runner.store import ActionRecord, NodeOutcome, Store

if TYPE_CHECKING:
    from epic_runner.actions.request import ActionRequest

ADOPTION_SECONDS = 30.0


@click.group()
def action() -> None:
    """Run scripts on the nodes of a cluster, and look at what they did.

    \b
    Examples:
      epic-run action run lab install.sh
      epic-run action run lab --role worker --sudo --command "apt-get update"
      epic-run action list lab
    """


@action.command(cls=WithArguments)
@click.argument("cluster", shell_complete=completing.clusters)
@click.argument("script", required=False, shell_complete=completing.files)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, shell_complete=completing.files)
@click.option("--command", "-c", help="A line for bash, instead of a script.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    shell_complete=completing.roles,
    help="Only nodes of this node role. May be repeated.",
)
@click.option(
    "--node",
    "nodes",
    multiple=True,
    shell_complete=completing.nodes,
    help="Only this node. May be repeated.",
)
@click.option("--sudo", is_flag=True, help="Run as root, if the member may.")
@env_option("script")
@timeout_option("End it on a node after this long, such as 90s or 2h.")
@click.option(
    "--serial", type=click.IntRange(min=1), help="On so many nodes at once; all if absent."
)
@click.option(
    "--on-failure", type=click.Choice(["continue", "stop"]), default="continue", show_default=True,
    help="With --serial: whether further nodes are reached when it failed on one.",
)  # fmt: skip
@click.option("--background", "-b", is_flag=True, help="Return the action's id at once.")
@as_option(f"The member who runs it; {FIRST_ADMIN}")
@tenant_option
@output_option
def run(
    cluster: str,
    script: str | None,
    arguments: tuple[str, ...],
    *,
    command: str | None,
    roles: tuple[str, ...],
    nodes: tuple[str, ...],
    sudo: bool,
    environment: tuple[str, ...],
    timeout: str | None,
    serial: int | None,
    on_failure: str,
    background: bool,
    user: str | None,
    tenant: str | None,
    output: str,
) -> None:
    """Run a script on all nodes of a cluster, or on some.

    SCRIPT is a file of this machine in any language whose interpreter the nodes have (its #! line
    names it), or - for this command's input. It runs as the acting member, in that one's home;
    what follows SCRIPT goes to it. Every node's output appears behind the node's name, stdout on
    stdout and stderr on stderr, and is kept on the node. Ctrl-C ends it on all nodes.

    The script finds EPIC_CLUSTER, EPIC_TENANT, EPIC_NODE, EPIC_ROLE, EPIC_INDEX, EPIC_MASTER,
    EPIC_NODES, EPIC_USER and EPIC_ACTION in its environment; `epic-node` tells them as well.

    \b
    Examples:
      epic-run action run lab setup.py --verbose
      epic-run action run lab --role worker --command 'df -h /data'
      epic-run action run lab --sudo --serial 2 --on-failure stop --timeout 10m upgrade.sh
      epic-run action run lab --background crawl.sh
    """
    from epic_runner.actions import drive

    request = _request(
        script, command, arguments, environment, sudo, timeout, serial or 0, on_failure
    )
    store = Store()
    try:
        context = Context(store, site_hosts(store))
        begun = drive.begin(
            context, cluster, request, tenant=tenant, user=user, roles=roles, nodes=nodes
        )
        _go(context, begun, output, background=background)
    finally:
        store.close()


def _request(
    script: str | None,
    command: str | None,
    arguments: tuple[str, ...],
    environment: tuple[str, ...],
    sudo: bool,  # noqa: FBT001
    timeout: str | None,
    serial: int,
    on_failure: str,
) -> ActionRequest:
    from epic_runner.actions.request import ActionRequest

    if (script is None) == (command is None):
        raise click.UsageError("Either a script or --command is wanted.")
    if command is not None:
        name, content = command, command.encode()
    elif script == "-":
        name, content = "stdin", sys.stdin.buffer.read()
    else:
        name, content = Path(str(script)).name, _read(str(script))
    variables, seconds = pairs("--env", environment), seconds_of(timeout)
    return ActionRequest(name, content, arguments, variables, sudo, seconds, serial, on_failure)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as problem:
        raise InputError(
            f"{path}: {problem.strerror}.", "A line for bash is given by --command."
        ) from problem


def _go(context: Context, begun: ActionRecord, output: str, *, background: bool) -> None:
    """Run an action that has been recorded, here or in a process of its own."""
    if background:
        _hand_over(context, begun)
        data = {"action": begun.id, "cluster": begun.cluster, "tenant": begun.tenant}
        emit(data, lambda: _tell_background(begun), output)
        return
    raise click.exceptions.Exit(_watch(context, begun, output))


def _watch(context: Context, begun: ActionRecord, output: str) -> int:
    """Run an action and show it; return the exit code."""
    from epic_runner.actions import decide, drive
    from epic_runner.actions.printing import Lines

    lines = Lines(max(map(len, begun.nodes)))

    def ended(node: str, outcome: NodeOutcome) -> None:
        lines.end(node)
        if outcome.state != "done":
            click.echo(f"{node}: {_words(outcome)}", err=True)

    audience = drive.NOBODY if output == "json" else drive.Audience(lines.piece, ended)
    try:
        over = drive.drive(context, begun, audience)
    except KeyboardInterrupt:
        with context.store.read() as transaction:
            _tell_cancelled(transaction.action(begun.id))
        return CANCELLED
    seconds = (over.ended_at or time.time()) - over.started_at
    text = f"Action {over.id}: {decide.summary(over.nodes)} in {seconds:.1f} s."
    if output == "json":
        emit(as_dict(over), lambda: None, output)
    else:
        click.secho(text, err=True, fg=COLOURS.get(over.state, "red"))
        if over.state != "done":
            click.echo(f"Hint:  epic-run action rerun {over.id} --failed", err=True)
    return 0 if over.state == "done" else 1


def _tell_cancelled(over: ActionRecord) -> None:
    doubtful = {name: node for name, node in over.nodes.items() if node.state == "unknown"}
    if not doubtful:
        click.echo("\nIt is cancelled: its processes have ended on all nodes.", err=True)
        return
    click.echo("\nIt is cancelled, but may go on where nobody could end it:", err=True)
    for name, node in doubtful.items():
        click.echo(f"  {name}: {node.reason}", err=True)
    click.echo(f"Hint:  epic-run action cancel {over.id} tries again.", err=True)


def _tell_background(begun: ActionRecord) -> None:
    click.echo(begun.id)
    click.echo(f"Hint:  epic-run action logs {begun.id} -f", err=True)


def _hand_over(context: Context, begun: ActionRecord) -> None:
    """Have a process of its own drive an action; return when it does."""
    folder = private_directory(operation_directory(begun.id))
    log = folder / "driver.log"
    process = detached(["action", "drive", begun.id], log)
    end = time.monotonic() + ADOPTION_SECONDS
    while True:
        with context.store.read() as transaction:
            now = transaction.action(begun.id)
        if now.pid == process.pid or now.is_over:
            return
        if process.poll() is not None or time.monotonic() > end:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise OperationFailed(
                f"The action {begun.id} could not go on in the background: "
                f"{said[-1] if said else 'its process ended'}."
            )
        time.sleep(0.02)


@action.command(hidden=True)
@click.argument("key", metavar="ACTION", shell_complete=completing.actions)
def drive(key: str) -> None:
    """Drive an action that was recorded: the part of --background that goes on.

    \b
    Examples:
      epic-run action drive 20250301-101500-0a1b2c3d
    """
    from epic_runner.actions import drive as driving

    # A controller that is shut down, or a session that ends, is no reason to end the scripts: nodes
    # go on alone, and are asked later.
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    store = Store()
    try:
        context = Context(store, site_hosts(store))
        with store.read() as transaction:
            begun = transaction.action(key)
        driving.drive(context, driving.adopt(context, begun))
    finally:
        store.close()


@action.command("list")
@click.argument("cluster", shell_complete=completing.clusters)
@click.option("--lines", "-n", type=click.IntRange(min=1), default=20, show_default=True,
              help="How many, the newest first.")  # fmt: skip
@tenant_option
@output_option
def list_(cluster: str, lines: int, tenant: str | None, output: str) -> None:
    """List the actions of a cluster: who, when, what, and how it ended, by all members.

    \b
    Examples:
      epic-run action list lab
      epic-run action list lab --lines 100 --output json
    """
    from epic_runner.actions import decide
    from epic_runner.actions.drive import settle

    store = Store()
    try:
        context = Context(store, site_hosts(store))
        with store.read() as transaction:
            record = transaction.find_cluster(cluster, tenant)
            found = transaction.actions(record.tenant, record.name, limit=lines)
        # Those of an earlier cluster of this name are over and gone.
        found = [item for item in found if item.started_at >= record.created_at]
        found = [item if item.is_over else settle(context, item) for item in found]
    finally:
        store.close()
    rows = [
        (item.id, when(item.started_at), _who(item),
         shortened(item.name), item.state, item.reason or decide.summary(item.nodes))
        for item in found
    ]  # fmt: skip
    emit(
        [as_dict(item) for item in found],
        lambda: click.echo(table(["ACTION", "WHEN", "USER", "WHAT", "STATE", "NODES"], rows)),
        output,
    )


@action.command()
@click.argument("key", metavar="ACTION", shell_complete=completing.actions)
@output_option
def show(key: str, output: str) -> None:
    """Show an action: what ran, and what each node has made of it.

    ACTION is an id, or a beginning of it. Nodes that were unknown are asked again.

    \b
    Examples:
      epic-run action show 20250301-1015
    """
    with _opened(key, doubts=True) as (_context, found):
        emit(as_dict(found), lambda: _print(found), output)


def _who(found: ActionRecord) -> str:
    return found.user + (" (sudo)" if found.options["sudo"] else "")


def _print(found: ActionRecord) -> None:
    root = " as root" if found.options["sudo"] else ""
    asked = f" (asked by {found.asked_by})" if found.asked_by else ""
    state = click.style(found.state, fg=COLOURS.get(found.state, "red"), bold=True)
    where = f"{found.tenant}/{found.cluster}  {found.user}{root}{asked}  {when(found.started_at)}"
    why = f": {found.reason}" if found.reason else ""
    click.echo(f"{found.id}  {where}  {state}{why}")
    arguments = " ".join(found.options["arguments"])
    click.echo(
        f"{shortened(found.name, 60)} {arguments}".rstrip() + f"  (sha256 {found.digest[:12]})"
    )
    click.echo()
    rows = [
        (name, node.state, "" if node.rc is None else node.rc,
         "" if node.ended_at is None else f"{node.ended_at - found.started_at:.1f} s",
         _remark(node))
        for name, node in found.nodes.items()
    ]  # fmt: skip
    click.echo(table(["NODE", "STATE", "CODE", "AFTER", ""], rows))
    if found.state == "failed" and not found.is_play:
        click.echo(
            f"Hint:  epic-run action logs {found.id}; epic-run action rerun {found.id} --failed"
        )


@action.command()
@click.argument("key", metavar="ACTION", shell_complete=completing.actions)
@click.option(
    "--node", shell_complete=completing.nodes, help="Only this node, and byte for byte as it came."
)
@click.option("--follow", "-f", is_flag=True, help="Go on until the action ends.")
def logs(key: str, node: str | None, *, follow: bool) -> None:
    """Show what an action has printed, stdout on stdout and stderr on stderr.

    Of several nodes, each line stands behind its node's name.

    \b
    Examples:
      epic-run action logs 20250301-1015
      epic-run action logs 20250301-1015 --node worker-2 > worker-2.txt
      epic-run action logs 20250301-1015 -f
    """
    from epic_runner.actions.printing import Lines, plain

    with _opened(key) as (context, found), context.store.read() as transaction:
        if found.is_play:
            raise InputError("What a play prints is shown where it runs, and not kept.")
        cluster = transaction.find_cluster(found.cluster, found.tenant)
    if node:
        chosen = [node_of(cluster, node)]
    else:
        chosen = [one for one in cluster.nodes if one.short_name in found.nodes]
    lines = Lines(max((len(one.short_name) for one in chosen), default=0))
    reading = [
        _Reading(context, found, one, plain if node else lines.of(one.short_name), follow=follow)
        for one in chosen
    ]
    # Whoever has seen enough, leaves: threads that still read end with this process.
    problems = [text for text in (thread.problem() for thread in reading) if text]
    for one in chosen:
        lines.end(one.short_name)
    for text in problems:
        click.echo(text, err=True)
    if problems:
        raise click.exceptions.Exit(1)


class _Reading(threading.Thread):
    """Reads what one node has printed."""

    def __init__(
        self, context: Context, found: ActionRecord, node: Node, show: Write, *, follow: bool
    ) -> None:
        super().__init__(daemon=True)
        self._arguments = (context, found, node, show)
        self._follow = follow
        self._problem = ""
        self.start()

    def run(self) -> None:
        """Read to the end."""
        from epic_runner.actions.drive import read_output

        try:
            read_output(*self._arguments, follow=self._follow)
        except EpicError as problem:
            self._problem = f"{self._arguments[2].short_name}: {problem.message}"

    def problem(self) -> str:
        """Wait for the end; return why something could not be read, or nothing."""
        join(self)
        return self._problem


@action.command()
@click.argument("key", metavar="ACTION", shell_complete=completing.actions)
@output_option
def cancel(key: str, output: str) -> None:
    """End an action: all its processes on all nodes, and what was still to come.

    \b
    Examples:
      epic-run action cancel 20250301-1015
    """
    from epic_runner.actions.drive import cancel as end

    with _opened(key, doubts=True) as (context, found):
        over = end(context, found)
    emit(as_dict(over), lambda: _print(over), output)
    if over.state == "failed":
        raise click.exceptions.Exit(1)


@action.command()
@click.argument("key", metavar="ACTION", shell_complete=completing.actions)
@click.option("--failed", is_flag=True, help="Only on nodes on which it did not end well.")
@click.option("--background", "-b", is_flag=True, help="Return the new action's id at once.")
@as_option("The member who runs it; who ran it before by default.")
@output_option
def rerun(key: str, *, failed: bool, background: bool, user: str | None, output: str) -> None:
    """Run an action again, with the same script and arguments: a new action.

    \b
    Examples:
      epic-run action rerun 20250301-1015 --failed
    """
    from dataclasses import replace

    from epic_runner.actions import decide, drive
    from epic_runner.actions.request import ActionRequest

    with _opened(key, doubts=True) as (context, found):
        if found.is_play:
            raise InputError(
                f"The action {found.id} was a play.",
                f"epic-run action play {found.cluster} {found.name} runs it again.",
            )
        if not found.is_over:
            raise InputError(
                f"The action {found.id} still runs.", f"epic-run action show {found.id}"
            )
        # One that was refused has not ended well anywhere.
        only_failed = failed and found.state != "refused"
        names = decide.failed_nodes(found.nodes) if only_failed else list(found.nodes)
        if not names:
            click.echo(f"The action {found.id} ended well on all nodes: there is nothing to do.")
            return
        request = ActionRequest.of(found.name, found.script, found.options)
        begun = drive.begin(
            context, found.cluster, replace(request, again=found.id), tenant=found.tenant,
            user=user or found.user, nodes=names,
        )  # fmt: skip
        _go(context, begun, output, background=background)


@action.command(cls=WithArguments)
@click.argument("cluster", shell_complete=completing.clusters)
@click.argument("playbook", shell_complete=completing.files)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, shell_complete=completing.files)
@as_option(f"The member who runs it; {FIRST_ADMIN}")
@tenant_option
def play(
    cluster: str, playbook: str, options: Sequence[str], user: str | None, tenant: str | None
) -> None:
    """Run a playbook of your own on the nodes, as a member; `become` works where that one may.

    The nodes are hosts in groups of the cluster's name and its node roles: `lab`, `lab_worker`.
    What follows PLAYBOOK goes to ansible-playbook. Roles beside the playbook are found.

    \b
    Examples:
      epic-run action play lab site.yml
      epic-run action play lab site.yml --limit lab_worker -e version=2
    """
    from epic_runner.actions.playing import play as run_play

    store = Store()
    try:
        context = Context(store, site_hosts(store))
        code = run_play(context, cluster, playbook, options, tenant=tenant, user=user)
    finally:
        store.close()
    raise click.exceptions.Exit(code)


@contextmanager
def _opened(key: str, *, doubts: bool = False) -> Iterator[tuple[Context, ActionRecord]]:
    """Open the store, and find an action as it is now.

    Args:
        key: Its id, or a beginning of it.
        doubts: Whether nodes that were unknown before are asked again.
    """
    from epic_runner.actions.drive import settle

    store = Store()
    try:
        context = Context(store, site_hosts(store))
        with store.read() as transaction:
            found = transaction.action(key)
        yield context, settle(context, found, doubts=doubts)
    finally:
        store.close()


def as_dict(found: ActionRecord) -> Mapping[str, Any]:
    """Return an action for programs; its script by its hash alone."""
    hidden = ("script", "controller", "pid", "pid_started")
    data = {name: value for name, value in vars(found).items() if name not in hidden}
    return {**data, "nodes": {name: vars(node) for name, node in found.nodes.items()}}


def _words(outcome: NodeOutcome) -> str:
    code = "" if outcome.rc is None else f" with exit code {outcome.rc}"
    return f"{outcome.state}{code}" + (f": {_remark(outcome)}" if _remark(outcome) else "")


def _remark(outcome: NodeOutcome) -> str:
    cut = f"its {' and '.join(outcome.cut)} was cut at the limit" if outcome.cut else ""
    return "; ".join(part for part in (outcome.reason, cut) if part)
