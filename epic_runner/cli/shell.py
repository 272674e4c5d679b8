"""`epic-run shell`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

import click

from epic_runner import docker_exec, jobs
from epic_runner.actions.printing import write
from epic_runner.cli import completing
from epic_runner.cli.common import (
    FIRST_ADMIN,
    as_option,
    is_terminal,
    node_of,
    tenant_option,
)
from epic_runner.cluster import Node
from epic_runner.docker_exec import Setting
from epic_runner.errors import EpicError
from epic_runner.hosts import Host
from epic_runner.lifecycle import acting_user, who_asks
from epic_runner.processes import CANCELLED
from epic_runner.site import site_hosts
from epic_runner.standing import touch
from epic_runner.store import Store

# What a member makes in the tenant's storage is for all members, so the group may write it.
LOGIN = ["bash", "-c", "umask 0002; cd; exec bash -l"]
LOGIN_COMMAND = ["bash", "-lc", 'umask 0002; cd; exec "$@"', "bash"]

# By this variable the processes of a command are found when nobody waits for it any more.
_MARK = "EPIC_SHELL"
_END = 'cd /proc; for p in [0-9]*; do grep -qzx "$1" $p/environ && kill -"$2" $p; done 2>/dev/null'


class CommandBehindDashes(click.Command):
    """A command that takes what stands behind `--` as it is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the command off the line before the rest is read."""
        cut = args.index("--") if "--" in args else len(args)
        try:
            rest = super().parse_args(ctx, args[:cut])
        except click.UsageError as problem:
            if cut < len(args):
                raise
            told = problem.format_message().rstrip(".")
            hint = f"A command stands behind --: {ctx.command_path} lab -- ls -l"
            raise click.UsageError(f"{told}. {hint}", ctx) from problem
        if cut < len(args):
            ctx.params["command"] = tuple(args[cut + 1 :])
        return rest


@click.command(cls=CommandBehindDashes, options_metavar="[OPTIONS]")
@click.argument("cluster", shell_complete=completing.clusters)
@click.argument("node", required=False, shell_complete=completing.nodes)
@as_option(f"The member who acts; {FIRST_ADMIN}")
@tenant_option
def shell(
    cluster: str,
    node: str | None,
    user: str | None,
    tenant: str | None,
    command: tuple[str, ...] = (),
) -> None:
    """Open a shell on a node, or run a command there: -- COMMAND.

    NODE is a node's name or its node role; by default it is the node on which jobs are submitted.
    A command gets this command's input if that is a file or a pipe, and its exit code becomes
    this command's.

    \b
    Examples:
      epic-run shell lab
      epic-run shell lab worker-2 --as bob
      epic-run shell lab -- ls -l /tenant
      epic-run shell lab -- tee /tenant/data/sales.csv < sales.csv >/dev/null
    """
    store = Store()
    with store.read() as transaction:
        record = transaction.find_cluster(cluster, tenant)
        acting = acting_user(transaction.tenant(record.tenant), user, who_asks())
    hosts = site_hosts(store)
    store.close()
    jobs.refuse_stopped(record)
    chosen: Node = node_of(record, node) if node else jobs.submitting_node(record)
    host = hosts[chosen.host]
    setting = Setting(
        user=acting,
        directory=f"/home/{acting}",
        environment={"HOME": f"/home/{acting}", "USER": acting, "LOGNAME": acting},
    )
    jobs.refuse_dead(host, record, chosen)
    if command:
        # A terminal's keys are nothing that a command waits for; a file or a pipe is.
        code = run_command(host, chosen, command, setting, feed=not sys.stdin.isatty())
    elif is_terminal():
        code = interact(host, chosen, setting)
    else:
        code = run_command(host, chosen, ["bash", "-l"], setting, feed=True)
    # Nothing in the node tells of a shell that is gone; that it was there is no reason to fail.
    with contextlib.suppress(EpicError):
        touch(Store(), record, f"a shell of {acting}")
    raise click.exceptions.Exit(code)


def run_command(host: Host, node: Node, command: Sequence[str], on: Setting, *, feed: bool) -> int:
    """Run a command without a terminal, and return its exit code; Ctrl-C ends it.

    `feed` says whether it gets this command's input.
    """
    setting, end = _marked(on)
    try:
        return docker_exec.stream(
            host,
            node.container,
            [*LOGIN_COMMAND, *command],
            write,
            setting=setting,
            stdin=sys.stdin.buffer if feed else None,
        )
    except KeyboardInterrupt:
        docker_exec.output_of(host, node.container, [*end, "TERM"], setting=Setting(user=on.user))
        return CANCELLED


def _marked(on: Setting) -> tuple[Setting, list[str]]:
    """Return a setting whose processes can be found, and what sends them the signal behind it."""
    mark = f"{os.getpid()}-{os.urandom(4).hex()}"
    setting = Setting(on.user, on.directory, {**on.environment, _MARK: mark})
    return setting, ["bash", "-c", _END, "bash", f"{_MARK}={mark}"]


def interact(host: Host, node: Node, on: Setting) -> int:
    """Connect this terminal with a login shell's, and return the shell's exit code."""
    environment = {**on.environment, "TERM": os.environ.get("TERM", "xterm-256color")}
    setting, end = _marked(Setting(on.user, on.directory, environment))
    terminal = docker_exec.Terminal(host, node.container, LOGIN, setting=setting)

    def resize(*_: object) -> None:
        size = os.get_terminal_size(sys.stdout.fileno())
        terminal.resize(size.lines, size.columns)

    try:
        with _raw_terminal(), _on_window_change(resize):
            resize()
            threading.Thread(target=_type, args=(terminal,), daemon=True).start()
            while data := terminal.receive():
                os.write(sys.stdout.fileno(), data)
    except (KeyboardInterrupt, OSError):
        # This terminal is gone. Docker does not tell the shell, which would wait for ever.
        docker_exec.output_of(host, node.container, [*end, "HUP"], setting=Setting(user=on.user))
        return CANCELLED
    return terminal.close()


def _type(terminal: docker_exec.Terminal) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(sys.stdin.fileno(), docker_exec.CHUNK):
            terminal.send(data)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Hand every key to the shell in the node, Ctrl-C too, until the end."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _on_window_change(act: signal._HANDLER) -> Iterator[None]:
    before = signal.signal(signal.SIGWINCH, act)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
