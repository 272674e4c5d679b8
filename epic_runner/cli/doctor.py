"""`epic-run doctor`: whether this machine can carry clusters, and how to mend what it lacks."""

from __future__ import annotations

import click

from epic_runner.doctor import Finding, State, judge, worst
from epic_runner.doctor_facts import gather
from epic_runner.output import emit, output_option, table

_COLORS = {State.OK: "green", State.WARN: "yellow", State.FAIL: "red"}


@click.command()
@output_option
@click.pass_context
def doctor(context: click.Context, output: str) -> None:
    """Check this machine, and tell how to mend what is wrong.

    Looks at Python and Ansible, the Docker engine with its storage and limits, disk, memory,
    clock, DNS, the images, the store, the ports for endpoints, and Vault where one
    is configured. Nothing is changed. The exit code is 1 when something fails; warnings alone
    leave it 0.

    \b
    Examples:
      epic-run doctor
      epic-run doctor --output json
    """
    findings = judge(gather())
    state = worst(findings)
    result = {"state": state, "checks": [finding.as_dict() for finding in findings]}
    emit(result, lambda: _print(findings), output)
    if state is State.FAIL:
        context.exit(1)


def _print(findings: list[Finding]) -> None:
    rows = [(item.check, item.state, item.seen) for item in findings]
    lines = table(["CHECK", "STATE", "SEEN"], rows).splitlines()
    click.echo(lines[0])
    for line, finding in zip(lines[1:], findings, strict=True):
        click.secho(line, fg=_COLORS[finding.state] if finding.state is not State.OK else None)
    for finding in findings:
        if finding.mend:
            click.echo(f"\n{finding.check}: {finding.mend}")
    wrong = sum(finding.state is not State.OK for finding in findings)
    if not wrong:
        click.echo("\nNothing to mend.")
