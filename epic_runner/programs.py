"""What may be submitted: kinds of files, where they are, and how they are run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

# Files beginning so are inside the nodes: the tenant's storage, and the node's own volume.
INSIDE: Final = ("/tenant/", "/data/")
KINDS: Final = {
    ".py": "Python",
    ".jar": "Java and Scala",
    ".R": "R",
    ".r": "R",
    ".sh": "shell",
    ".ipynb": "notebook",
}
KINDS_TEXT: Final = ", ".join(f"{end} ({what})" for end, what in KINDS.items())
PY_FILE_KINDS: Final = (".py", ".zip", ".egg")

# The form of a Spark property's name, and of a variable's.
CONF_KEY: Final = r"[A-Za-z][\w.-]*"
VARIABLE: Final = r"[A-Za-z_]\w*"

# What names a secret among properties and variables, as Spark has it and a little more.
_SECRET = re.compile(r"(?i)secret|passw|token|credential|(access|api|private)[._-]?key")
HIDDEN = "(hidden)"


def kind_of(file: str) -> str | None:
    """Return the ending that tells how a file is run; None where it is not known."""
    suffix = PurePosixPath(file).suffix
    return suffix if suffix in KINDS else None


def is_python_file(file: str) -> bool:
    """Whether a file can go along with a Python program."""
    return PurePosixPath(file).suffix in PY_FILE_KINDS


def archive_of(item: str) -> tuple[str, str]:
    """Return an archive's file, and what its folder is called: empty for the archive's own name."""
    file, _, name = item.partition("#")
    return file, name


def is_inside(file: str) -> bool:
    """Whether a path means a file inside the nodes, and not one of this machine."""
    return file.startswith(INSIDE)


def takes_arguments(file: str) -> bool:
    """Whether a program of this kind can have arguments: notebooks have none."""
    return kind_of(file) != ".ipynb"


def called_alike(files: Iterable[str]) -> str | None:
    """Return a name that two files have of those that are brought into a node; None if none."""
    names = [PurePosixPath(file).name for file in files if not is_inside(file)]
    return next((name for name in names if names.count(name) > 1), None)


@dataclass(frozen=True)
class JobRequest:
    """What somebody wants to run.

    Attributes:
        file: A file of this machine, or of the nodes when it begins with /tenant/ or /data/.
        arguments: The program's arguments.
        conf: Spark's properties for this job.
        py_files: More Python files for the driver and the executors.
        jars: More jars for their class paths.
        files: Files for their working folders, which `SparkFiles.get` finds.
        archives: Archives that are unpacked there, with `#name` behind one for its folder.
        main_class: The main class of a jar whose manifest names none.
        name: The application's name; the program's own choice if empty.
        environment: Variables that the program finds in its environment.
        on: The connected cluster whose workers it runs on; the cluster's own if empty.
        timeout_seconds: After how long its node ends it; 0 for never.
        title: What people call it, where that is neither the application's name nor the file's.
    """

    file: str
    arguments: tuple[str, ...] = ()
    conf: Mapping[str, str] = field(default_factory=dict)
    py_files: tuple[str, ...] = ()
    jars: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    main_class: str = ""
    name: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    on: str = ""
    timeout_seconds: int = 0
    title: str = ""

    @property
    def all_files(self) -> tuple[str, ...]:
        """The program's file and all that goes along with it."""
        archives = (archive_of(item)[0] for item in self.archives)
        return (self.file, *self.py_files, *self.jars, *self.files, *archives)

    @property
    def called(self) -> str:
        """What people call it."""
        return self.title or self.name or PurePosixPath(self.file).name

    def options(self) -> dict[str, Any]:
        """Return how it is run, as the store keeps it: without what is secret by its name."""
        return {
            "arguments": list(self.arguments),
            "conf": _without_secrets(self.conf),
            "py_files": list(self.py_files),
            "jars": list(self.jars),
            "files": list(self.files),
            "archives": list(self.archives),
            "class": self.main_class,
            "environment": _without_secrets(self.environment),
            "on": self.on,
            "timeout_seconds": self.timeout_seconds,
        }


def _without_secrets(values: Mapping[str, str]) -> dict[str, str]:
    return {name: HIDDEN if _SECRET.search(name) else value for name, value in values.items()}
