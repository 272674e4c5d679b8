"""Runs many `epic-run` commands at the same moment: processes of one that has imported all of it.

Reads a JSON list of commands, writes a JSON list of what each ended with. What starts a command
(a Python that imports) is done once for all of them, since a hundred would only queue for it; from
the reading of the arguments on, each is a process of its own that does all that epic-run does. Two
things differ: Ansible is started when it is needed and not ahead of that, and this machine is said
to have room for whatever is asked, so that the quota is what decides.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from epic_runner import __main__, ahead, hosts, site
from epic_runner.cli import launch, reading

assert launch, reading  # imported for all, as cli/launch.py does when it runs

MANY_CORES = 1024
MUCH_MEMORY_BYTES = 2**42


def main() -> None:
    commands = json.load(sys.stdin)
    machine = hosts.local_host()
    roomy = replace(machine, cores=MANY_CORES, memory_bytes=MUCH_MEMORY_BYTES)
    site.local_host = lambda: roomy
    ahead.begin = lambda: None
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / str(number) for number in range(len(commands))]
        waiting, gate = os.pipe()
        children = []
        for command, output in zip(commands, outputs, strict=True):
            child = os.fork()
            if child == 0:
                os.close(gate)
                begin_with_all(waiting, command, output)
            children.append(child)
        os.close(gate)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        ended = [
            {"code": code, "output": output.read_text()}
            for code, output in zip(codes, outputs, strict=True)
        ]
    json.dump(ended, sys.stdout)


def begin_with_all(waiting: int, command: list[str], output: Path) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    code = 70
    try:
        os.read(waiting, 1)  # nothing ever comes: it ends when the last one has been started
        code = __main__.run(command)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
