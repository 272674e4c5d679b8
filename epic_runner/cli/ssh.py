"""`epic-run ssh`."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import click

from epic_runner.cli import completing
from epic_runner.cli.common import FIRST_ADMIN, as_option, node_of, tenant_option
from epic_runner.cli.shell import CommandBehindDashes
from epic_runner.errors import EpicError
from epic_runner.lifecycle import who_asks

# For a folder that one connection uses, and that goes with it.
_HOURS = 0.1


@click.command(cls=CommandBehindDashes, options_metavar="[OPTIONS]")
@click.argument("cluster", shell_complete=completing.clusters)
@click.argument("node", required=False, shell_complete=completing.nodes)
@as_option(f"The member who acts; {FIRST_ADMIN}")
@tenant_option
def ssh(
    cluster: str,
    node: str | None,
    user: str | None,
    tenant: str | None,
    command: tuple[str, ...] = (),
) -> None:
    """Open a shell on a node by ssh, through the gateway.

    NODE is a node's name or its node role; by default it is the node on which jobs are submitted.
    A command behind -- is run instead of a shell, and its exit code becomes this command's. For
    scp, sftp, editors and other people's machines: epic-run login --ssh.

    \b
    Examples:
      epic-run ssh lab
      epic-run ssh lab worker-2 --as bob
      epic-run ssh lab -- nproc
    """
    import shlex

    from epic_runner.actions.due import awaited
    from epic_runner.gateway import ssh_folder
    from epic_runner.resources import home, private_directory
    from epic_runner.site import site_hosts
    from epic_runner.store import Store

    program = shutil.which("ssh")
    if program is None:
        raise EpicError("This machine has no ssh.", "Debian and Ubuntu: apt install openssh-client")
    store = Store()
    with store.read() as transaction:
        record = transaction.find_cluster(cluster, tenant)
        awaits = awaited(record, transaction.declared_history(record))
    gateway = ssh_folder.reached(record, site_hosts(store), awaits)
    host = node_of(record, node).name if node else record.name
    private_directory(home())
    with tempfile.TemporaryDirectory(prefix=".ssh-", dir=home()) as folder:
        with store.read() as transaction:
            ssh_folder.write(
                transaction, gateway, record, Path(folder),
                user=user, hours=_HOURS, asker=who_asks(),
            )  # fmt: skip
        store.close()
        # ssh hands one text to the shell of the node: words stay words.
        words = [shlex.join(command)] if command else []
        code = _run([program, "-F", f"{folder}/config", host, *words])
    raise click.exceptions.Exit(code)


def _run(command: list[str]) -> int:
    """Run a program to its end; Ctrl-C is for it, and for what it runs in the node."""
    process = subprocess.Popen(command)
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            continue
        return code if code >= 0 else 128 - code
