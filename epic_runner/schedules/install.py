"""Having cron or systemd call the scheduler every minute, in the name of the one who installs it.

One entry serves all schedules and lifetimes: time zones, overlaps and missed runs are the
scheduler's, which a line of cron for each job could not keep.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from epic_runner.errors import EpicError
from epic_runner.resources import home, private_directory

MARK = "# epic-run schedule"
UNIT = "epic-run-schedule"

# What a service needs to find the same store, hosts and engine as its user's shell.
_KEPT = ("DOCKER_HOST", "SSH_AUTH_SOCK", "PATH", "LANG", "PYTHONPATH")


@dataclass(frozen=True)
class Entry:
    """What is installed: files by their paths, and the line of cron, if it is cron's.

    Attributes:
        files: Text by path; the environment among them, which may hold a password.
        line: The line of the crontab; empty for systemd.
    """

    files: Mapping[Path, str]
    line: str = ""


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the scheduler is to have."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name in _KEPT or (name.startswith("EPIC_") and name not in ("EPIC_OUTPUT", "EPIC_DEBUG"))
    }


def cron_entry(environment: Mapping[str, str]) -> Entry:
    """Return what has cron call the scheduler every minute."""
    variables, log = _variables_file(), home() / "schedules" / "cron.log"
    text = "".join(
        f"export {name}={shlex.quote(value)}\n" for name, value in settings(environment).items()
    )
    call = " ".join(map(shlex.quote, _command()))
    # A percent sign would end the line of a crontab.
    line = f". {shlex.quote(str(variables))} && exec {call} >>{shlex.quote(str(log))} 2>&1"
    return Entry({variables: text}, f"* * * * * {line} {MARK}".replace("%", r"\%"))


def systemd_entry(environment: Mapping[str, str]) -> Entry:
    """Return what has systemd's user instance call the scheduler every minute."""
    variables, folder = _variables_file(".systemd"), _unit_folder(environment)
    text = "".join(f'{name}="{_quoted(value)}"\n' for name, value in settings(environment).items())
    call = " ".join(f'"{_quoted(word)}"' for word in _command()).replace("%", "%%")
    service = (
        "[Unit]\nDescription=Begins the jobs of epic-run that are due\n\n"
        f"[Service]\nType=oneshot\nEnvironmentFile={variables}\nExecStart={call}\n"
        "# Runs go on when the call that began them is over.\nKillMode=process\n"
    )
    timer = (
        "[Unit]\nDescription=Calls the scheduler of epic-run every minute\n\n"
        "[Timer]\nOnCalendar=minutely\nAccuracySec=1s\n\n[Install]\nWantedBy=timers.target\n"
    )
    return Entry(
        {
            variables: text,
            folder / f"{UNIT}.service": service,
            folder / f"{UNIT}.timer": timer,
        }
    )


def with_line(crontab: str, line: str) -> str:
    """Return a crontab with our line, in place of an earlier one; without one if it is empty."""
    kept = [item for item in crontab.splitlines() if not item.rstrip().endswith(MARK)]
    return "".join(f"{item}\n" for item in [*kept, *([line] if line else [])])


def install(entry: Entry) -> None:
    """Write an entry's files, and tell cron or systemd.

    Raises:
        EpicError: There is no cron, or no systemd for this user, or it refuses.
    """
    _require("crontab" if entry.line else "systemctl")
    for path, text in entry.files.items():
        if path.parent == home():
            private_directory(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    private_directory(home() / "schedules")
    if entry.line:
        _call("crontab", "-", given=with_line(_crontab(), entry.line))
        return
    _call("systemctl", "--user", "daemon-reload")
    _call("systemctl", "--user", "enable", "--now", f"{UNIT}.timer")


def uninstall(entry: Entry) -> None:
    """Take back what `install` did; what was begun goes on."""
    _require("crontab" if entry.line else "systemctl")
    if entry.line:
        _call("crontab", "-", given=with_line(_crontab(), ""))
    else:
        _call("systemctl", "--user", "disable", "--now", f"{UNIT}.timer")
    for path in entry.files:
        path.unlink(missing_ok=True)


def _command() -> list[str]:
    return [sys.executable, "-m", "epic_runner", "schedule", "serve", "--once"]


def _variables_file(suffix: str = "") -> Path:
    return home() / f"schedule{suffix}.env"


def _unit_folder(environment: Mapping[str, str]) -> Path:
    configured = environment.get("XDG_CONFIG_HOME")
    folder = Path(configured) if configured else Path.home() / ".config"
    return folder / "systemd" / "user"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _require(program: str) -> None:
    if shutil.which(program) is None:
        other = "systemd" if program == "crontab" else "cron"
        raise EpicError(
            f"This machine has no {program}.",
            f"Try --install {other}, or have something else keep epic-run schedule serve running.",
        )


def _crontab() -> str:
    done = subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def _call(*command: str, given: str | None = None) -> None:
    done = subprocess.run([*command], input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EpicError(
            f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()}",
            "For systemd without a login: loginctl enable-linger $USER"
            if command[0] == "systemctl"
            else None,
        )
