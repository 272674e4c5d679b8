"""Runs the own modules (library/) with little ado.

A stock module call packs its utilities into an archive that the host unpacks, imports and compiles
anew: 0.7 s of processor time, of which the module's own work is a tenth. These modules need nothing
but the standard library, so their source goes to one Python on the host as it is, over the
connection's standard input. The arguments are checked here, and neither a file nor the process
list of the host ever shows them; what is returned holds no arguments either.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import shlex
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import module_loader, module_utils_loader

UTILITY = "ansible.module_utils."
# What a module imports of the project's own utilities; one that imports another comes after it.
IMPORTED = re.compile(r"^from ansible\.module_utils\.(epic_\w+) import", re.MULTILINE)
MARK = "epic-result:"

# What the host's Python is started with; all else comes on its standard input.
BOOT = "import sys, json; job = json.loads(sys.stdin.readline()); exec(job['boot'])"
LOADER = f"""
import types
def load(name, source):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
    return module
for name, source in job["utilities"]:
    load(name, source)
result = load("epic_module", job["module"]).run(job["params"], job["check"])
print({MARK!r} + json.dumps(result))
"""


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs the module that the task names."""

    _supports_check_mode = True
    _supports_async = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Check the arguments, run the module's source on the host, return its result."""
        super().run(tmp, task_vars)
        return self.call(self.checked(task_vars), task_vars)

    def checked(self, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Return the task's arguments, once they are known to be what the module takes."""
        path = module_loader.find_plugin(self._task.action)
        _, params = self.validate_argument_spec(_loaded(path, self._task.action).ARGUMENT_SPEC)
        if "socket" in params and "socket" not in self._task.args:
            params["socket"] = (task_vars or {}).get("epic_docker_socket", params["socket"])
        return dict(params)

    def call(self, params: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module's source on the host and return its result."""
        job = {
            "boot": LOADER,
            "utilities": [
                (UTILITY + name, _source(module_utils_loader.find_plugin(name)))
                for name in _utilities(module_loader.find_plugin(self._task.action))
            ],
            "module": _source(module_loader.find_plugin(self._task.action)),
            "params": _with_sources(params),
            "check": self._task.check_mode,
        }
        python = (task_vars or {}).get("ansible_python_interpreter", "/usr/bin/python3")
        answer = self._low_level_execute_command(
            f"{shlex.quote(python)} -c {shlex.quote(BOOT)}",
            in_data=(json.dumps(job) + "\n").encode(),
        )
        for line in reversed(answer["stdout"].splitlines()):
            if line.startswith(MARK):
                result = dict(json.loads(line.removeprefix(MARK)))
                if result.get("engine_away"):
                    # A host whose engine is down or hangs is as good as one that is not reached.
                    raise AnsibleConnectionFailure(result["msg"])
                return result
        raise AnsibleActionFail(
            f"The host's {python} ended with {answer['rc']}: "
            f"{(answer['stderr'] or answer['stdout']).strip()}"
        )


def _with_sources(params: dict[str, Any]) -> dict[str, Any]:
    """Put the content of the controller's files where a command's `files` name them by `src`."""
    for command in params.get("commands", []):
        for file in command.get("files", {}).values():
            if "src" in file:
                try:
                    data = Path(file.pop("src")).read_bytes()
                except OSError as problem:
                    raise AnsibleActionFail(str(problem)) from problem
                file["base64"] = base64.b64encode(data).decode()
    return params


@cache
def _source(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


@cache
def _loaded(path: str, name: str) -> ModuleType:
    """Import a module's file, for its ARGUMENT_SPEC."""
    for utility in _utilities(path):
        if UTILITY + utility not in sys.modules:
            _imported(module_utils_loader.find_plugin(utility), UTILITY + utility, keep=True)
    return _imported(path, name)


def _imported(path: str, name: str, *, keep: bool = False) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise AnsibleActionFail(f"{path} is no module of Python")
    module = importlib.util.module_from_spec(found)
    if keep:
        sys.modules[name] = module
    found.loader.exec_module(module)
    return module


@cache
def _utilities(path: str) -> list[str]:
    """Return the utilities that a module needs, in the order in which they are loaded."""
    needed: list[str] = []
    for name in IMPORTED.findall(_source(path)):
        needed += [*_utilities(module_utils_loader.find_plugin(name)), name]
    return list(dict.fromkeys(needed))
