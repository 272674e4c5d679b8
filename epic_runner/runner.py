"""Running a playbook: the only module that knows ansible-runner."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from epic_runner import ahead
from epic_runner.errors import OperationFailed
from epic_runner.events import Listener, Translator
from epic_runner.host_secrets import in_memory, of_environment, without_secrets
from epic_runner.processes import (
    OPERATION_VARIABLE,
    controller,
    end_leftovers,
    seen_by_plays,
)
from epic_runner.resources import content_root, private_directory


def run_playbook(
    verb: str,
    inventory: Mapping[str, Any],
    directory: Path,
    *,
    operation: str,
    listener: Listener,
    limit: Iterable[str] = (),
    silent_ok: bool = False,
) -> Translator:
    """Run `playbooks/VERB.yml` and tell `listener` of each step.

    Args:
        verb: The playbook's name without its ending.
        inventory: The inventory as data; of its hosts' secrets no file is left.
        directory: A folder of this run alone; inventory, output and events stay there.
        operation: The operation's id, with which `end_leftovers` finds the processes.
        listener: Called with every step, in this thread.
        limit: The hosts that it acts on; all of the inventory's if there is none.
        silent_ok: Whether a play that only failed to reach hosts is as good as any.

    Returns:
        What was learnt from the events.

    Raises:
        OperationFailed: The play failed; the message names host or node and reason.
    """
    import ansible_runner

    private_directory(directory)
    path = directory / "inventory.json"
    kept, secrets = without_secrets(inventory)
    path.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    passwords = of_environment(os.environ)
    translator = Translator(listener)
    runner = ansible_runner.interface.init_runner(  # type: ignore[no-untyped-call]
        private_data_dir=str(directory),
        project_dir=str(content_root()),
        playbook=str(content_root() / "playbooks" / f"{verb}.yml"),
        inventory=str(path),
        # The roles' validation of their arguments is tagged so. This inventory was written by a
        # tested function; people who run the playbooks themselves have theirs validated.
        skip_tags="always",
        limit=",".join(limit) or None,
        event_handler=translator.handle,
        # Without one, ansible-runner catches Ctrl-C and SIGTERM itself, now and after the play.
        # Other hosts' nodes would wait for those of a silent one until they gave up.
        cancel_callback=lambda: translator.waits_in_vain,
        quiet=True,
        settings={"pexpect_use_poll": True},
    )
    runner.config.env = {
        **seen_by_plays(runner.config.env),
        "ANSIBLE_CONFIG": str(content_root() / "ansible.cfg"),
        OPERATION_VARIABLE: operation,
    }
    server = ahead.take()
    try:
        with in_memory(secrets, passwords) as arguments:
            runner.config.command = [*runner.config.command, *arguments]
            if server:
                runner.config.command = server.command(runner.config.command)
            runner.run()
    except BaseException:
        # Whatever ends this process's part, from Ctrl-C to a full disk: the play ends with it.
        end_leftovers(operation, controller())
        raise
    finally:
        if server:
            server.end()
    fine = runner.status == "successful" or (silent_ok and translator.only_silent)
    if not fine or not translator.saw_events:
        raise translator.failure() or OperationFailed(
            f"The playbook {verb}.yml ended with {runner.status}.",
            f"Its whole output: {directory}/artifacts/*/stdout",
        )
    return translator
