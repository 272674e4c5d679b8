"""Pure functions that turn a job into what its node needs; they know nothing of epic_runner."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

# Files whose paths begin so are inside the nodes already: the tenant's storage, and the node's own.
INSIDE = ("/tenant/", "/data/")

# Where a job's own files go: beside the folder that epic-job makes for it.
FOLDER = "/data/jobs/{id}.files/"
# In there, what it makes that is to be kept; Spark's ids of the applications that it is; and what
# runs a notebook.
OUTPUT, APPLICATIONS, NOTEBOOK = "output", "applications", "notebook.py"

# What goes along with a program, by spark-submit's options.
_CARRIED = {
    "--py-files": "py_files",
    "--jars": "jars",
    "--files": "files",
    "--archives": "archives",
}

JUPYTER_PYTHON = "/opt/jupyter/bin/python"
# The Python of R's bridge to PySpark, which epic-job does not take over from the node.
R_PYTHON = {"RETICULATE_PYTHON": "/opt/venv/bin/python"}

# Removes what jobs and actions left, but for the newest so many of them and what still runs, when
# there are more; then goes on as the command behind it. It costs nothing where there are few.
_PRUNE = """
shopt -s nullglob
keep=$1 all=(/data/jobs/*/command.json)
prune() {
    ls -1dt "${all[@]}" | tail -n "+$((keep + 1))" | while read -r file; do
        job=${file%/*}
        if [ ! -e "$job/rc" ]; then
            [ -e "$job/pid" ] && [ ! -d "/proc/$(<"$job/pid")" ] || continue
        fi
        rm -rf -- "$job" "$job.files"
    done
    # Of what could not be started, long enough ago that nobody is at it any more.
    find /data/jobs -mindepth 1 -maxdepth 1 -name '*.files' -mmin +60 | while read -r files; do
        [ -d "${files%.files}" ] || rm -rf -- "$files"
    done
}
((${#all[@]} <= keep)) || prune </dev/null &>/dev/null &
shift
"""
_GO_ON = 'exec "$@"'
_WAIT = """
epic-job follow "$1" --from-start >/dev/null 2>&1
code=$?
tail -n 50 "/data/jobs/$1/stdout" | tail -c 16384
tail -n 50 "/data/jobs/$1/stderr" | tail -c 16384 >&2
exit "$code"
"""
# The member's own folders, in which nobody else reads.
_FOLDERS = """
install -d -m 0750 -o "$1" -g "$1" "$2" "$2output"
shift 2
"""


def job_path(file: str, job_id: str) -> str:
    """Return the path of a job's file inside the node: where it is, or where it is put."""
    if file.startswith(INSIDE):
        return file
    return FOLDER.format(id=job_id) + PurePosixPath(file).name


def job_files(job: Mapping[str, Any], uid: int, notebook_runner: str) -> dict[str, dict[str, Any]]:
    """Return the files to put into the node, as the module epic_exec takes them.

    Args:
        job: `id`, `file`, `py_files`, `jars`, `files` and `archives`.
        uid: The user id of whose they will be; nobody else can read them.
        notebook_runner: The controller's path of the program that runs notebooks.
    """
    files = {
        job_path(file, job["id"]): {"src": file, "mode": "0600", "uid": uid, "gid": uid}
        for file in [job["file"], *job["py_files"], *job["jars"], *job["files"], *_archives(job)]
        if not file.startswith(INSIDE)
    }
    if _kind(job) == ".ipynb":
        files[FOLDER.format(id=job["id"]) + NOTEBOOK] = {"src": notebook_runner, "mode": "0644"}
    return files


def job_command(job: Mapping[str, Any], keep: int) -> list[str]:
    """Return the command that starts a job in the background of its node.

    Python files and jars are handed to spark-submit. Notebooks, R and shell scripts are run as they
    are, with the same settings in PYSPARK_SUBMIT_ARGS, where PySpark looks for them.

    Args:
        job: `id`, `user`, `file`, `arguments`, `conf`, `py_files`, `jars`, `files`, `archives`,
            `class`, `name`, `environment`, and `timeout_seconds` (0: none).
        keep: Of how many jobs and actions the node keeps what they left.
    """
    folder = FOLDER.format(id=job["id"])
    file, kind, options = job_path(job["file"], job["id"]), _kind(job), _options(job)
    environment = {
        "EPIC_JOB": job["id"],
        "EPIC_JOB_OUTPUT": folder + OUTPUT,
        "EPIC_JOB_APPLICATIONS": folder + APPLICATIONS,
        **(R_PYTHON if kind in (".R", ".r", ".ipynb") else {}),
        **job["environment"],
    }
    if kind in (".R", ".r", ".sh", ".ipynb"):
        environment.setdefault("PYSPARK_SUBMIT_ARGS", shlex.join([*options, "pyspark-shell"]))
        result = f"{folder}{OUTPUT}/{PurePosixPath(file).name}"
        command = {
            ".sh": ["bash", file],
            ".ipynb": [JUPYTER_PYTHON, folder + NOTEBOOK, file, result],
        }.get(kind, ["Rscript", file])
    else:
        command = ["spark-submit", *options, file]
    variables = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
    start = ["epic-job", "start", job["id"], "--user", job["user"]]
    if job["timeout_seconds"]:
        start += ["--timeout", str(job["timeout_seconds"])]
    script = _PRUNE + _FOLDERS + _GO_ON
    before = ["bash", "-c", script, "bash", str(keep), job["user"], folder]
    return [*before, *start, *variables, "--", *command, *map(str, job["arguments"])]


def job_waiting(job_id: str) -> list[str]:
    """Return the command that waits for a job's end in its node, and ends as it did.

    It prints the last lines of either stream alone, since ansible-runner drops what is too long.
    """
    return ["bash", "-c", _WAIT, "bash", job_id]


def jobs_kept(commands: list[dict[str, Any]], keep: int) -> list[dict[str, Any]]:
    """Return commands for nodes that first remove what all but the newest jobs have left there.

    Args:
        commands: The commands, as the module epic_exec takes them.
        keep: Of how many jobs and actions a node keeps what they left.
    """
    before = ["bash", "-c", _PRUNE + _GO_ON, "bash", str(keep)]
    return [{**item, "command": [*before, *item["command"]]} for item in commands]


def _kind(job: Mapping[str, Any]) -> str:
    return PurePosixPath(job["file"]).suffix


def _options(job: Mapping[str, Any]) -> list[str]:
    options = []
    if job["name"]:
        options += ["--name", job["name"]]
    if job["class"]:
        options += ["--class", job["class"]]
    for key, value in job["conf"].items():
        options += ["--conf", f"{key}={value}"]
    for option, key in _CARRIED.items():
        if job[key]:
            options += [option, ",".join(job_path(file, job["id"]) for file in job[key])]
    return options


def _archives(job: Mapping[str, Any]) -> list[str]:
    return [archive.partition("#")[0] for archive in job["archives"]]


class FilterModule:
    """Ansible's entry to this file's filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "job_command": job_command,
            "job_files": job_files,
            "job_waiting": job_waiting,
            "jobs_kept": jobs_kept,
        }
