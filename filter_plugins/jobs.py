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


def job_path(file: str, job_id: str) -> str:
    """Return the path of a job's file inside the node: where it is, or where it is put."""
    if file.startswith(INSIDE):
        return file
    return FOLDER.format(id=job_id) + PurePosixPath(file).name


def job_files(job: Mapping[str, Any], uid: int) -> dict[str, dict[str, Any]]:
    """Return the files to put into the node, as the module epic_exec takes them.

    Args:
        job: `id`, `file` and `py_files`.
        uid: The user id of whose they will be; nobody else can read them.
    """
    return {
        job_path(file, job["id"]): {"src": file, "mode": "0600", "uid": uid, "gid": uid}
        for file in [job["file"], *job["py_files"]]
        if not file.startswith(INSIDE)
    }


def job_command(job: Mapping[str, Any]) -> list[str]:
    """Return the command that starts a job in the background of its node.

    Python files and jars are handed to spark-submit. R and shell scripts are run as they are, with
    the same settings in PYSPARK_SUBMIT_ARGS, where PySpark looks for them.

    Args:
        job: `id`, `user`, `file`, `arguments`, `conf`, `py_files`, `class`, `name`, and
            `environment`.
    """
    file = job_path(job["file"], job["id"])
    options = _options(job)
    environment = {"EPIC_JOB": job["id"], **job["environment"]}
    kind = PurePosixPath(file).suffix
    if kind in (".R", ".r", ".sh"):
        environment.setdefault("PYSPARK_SUBMIT_ARGS", shlex.join([*options, "pyspark-shell"]))
        command = ["bash" if kind == ".sh" else "Rscript", file]
    else:
        command = ["spark-submit", *options, file]
    variables = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
    start = ["epic-job", "start", job["id"], "--user", job["user"], *variables, "--"]
    return [*start, *command, *map(str, job["arguments"])]


def _options(job: Mapping[str, Any]) -> list[str]:
    options = []
    if job["name"]:
        options += ["--name", job["name"]]
    if job["class"]:
        options += ["--class", job["class"]]
    for key, value in job["conf"].items():
        options += ["--conf", f"{key}={value}"]
    if job["py_files"]:
        options += ["--py-files", ",".join(job_path(file, job["id"]) for file in job["py_files"])]
    return options


class FilterModule:
    """Ansible's entry to this file's filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"job_command": job_command, "job_files": job_files}
