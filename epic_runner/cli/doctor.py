"""`epic-run doctor`: whether machine and hosts can carry clusters, and how to mend them."""

from __future__ import annotations

import click

from epic_runner.doctor import Finding, State, judge, worst
from epic_runner.doctor_facts import gather
from epic_runner.doctor_hosts import HostReport, look_at_hosts
from epic_runner.output import emit, output_option, table

_COLORS = {State.OK: "green", State.WARN: "yellow", State.FAIL: "red"}


@click.command()
@output_option
@click.pass_context
def doctor(context: click.Context, output: str) -> None:
    """Check this machine and all hosts, and tell how to mend what is wrong.

    Looks at Python and Ansible, the Docker engine with its storage and limits, disk, memory,
    clock, DNS, the images, the store, the ports for endpoints, and Vault where one
    is configured. With an inventory of hosts it also looks at every host, all at once:
    at what `epic-run host check` sees, at memory and images. Nothing is changed. The exit
    code is 1 when something fails; warnings alone leave it 0.

    \b
    Examples:
      epic-run doctor
      epic-run doctor --output json
    """
    findings = judge(gather())
    reports = look_at_hosts()
    state = worst([*findings, *(item for report in reports for item in report.findings)])
    result = {
        "state": state,
        "checks": [finding.as_dict() for finding in findings],
        "hosts": [report.as_dict() for report in reports],
    }
    emit(result, lambda: _print(findings, reports), output)
    if state is State.FAIL:
        context.exit(1)


def _print(findings: list[Finding], reports: list[HostReport]) -> None:
    rows = [(item.check, item.state, item.seen) for item in findings]
    rows += [(f"host {report.host}", report.state, report.seen) for report in reports]
    lines = table(["CHECK", "STATE", "SEEN"], rows).splitlines()
    click.echo(lines[0])
    for line, (_, state, _) in zip(lines[1:], rows, strict=True):
        click.secho(line, fg=_COLORS[state] if state is not State.OK else None)
    for finding in findings:
        if finding.mend:
            click.echo(f"\n{finding.check}: {finding.mend}")
    for report in reports:
        for finding in report.findings:
            if finding.mend:
                click.echo(f"\nhost {report.host}: {finding.seen}\n  {finding.mend}")
    if all(state is State.OK for _, state, _ in rows):
        click.echo("\nNothing to mend.")
