"""Every verb explains itself, has an example, and is documented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from epic_runner.cli import VERBS, cli

ROOT = Path(__file__).resolve().parents[2]


def commands(group: click.Group, *above: str) -> Iterator[tuple[str, click.Command]]:
    """Go through all verbs and the verbs inside them, by what people type."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command, f"{name} is listed and not there"
        yield " ".join([*above, name]), command
        if isinstance(command, click.Group):
            yield from commands(command, *above, name)


COMMANDS = dict(commands(cli))
each_command = pytest.mark.parametrize("words", COMMANDS)


def help_of(words: str) -> str:
    result = CliRunner().invoke(cli, [*words.split(), "--help"], prog_name="epic-run")
    assert result.exit_code == 0, result.output
    return result.output


def test_the_help_lists_every_verb_with_one_line() -> None:
    text = help_of("")
    for section, verbs in VERBS.items():
        assert f"{section}:" in text
        for verb, line in verbs.items():
            assert re.search(rf"^  {verb} +{re.escape(line[:20])}", text, re.MULTILINE), verb
    assert "Examples:" in text


@each_command
def test_the_help_of_a_verb_says_what_it_does_and_shows_examples(words: str) -> None:
    text = help_of(words)
    assert f"Usage: epic-run {words}" in text
    assert COMMANDS[words].get_short_help_str(), words
    if not isinstance(COMMANDS[words], click.Group):
        examples = text.partition("Examples:")[2]
        assert f"epic-run {words}" in examples, text


@pytest.mark.parametrize(
    ("verb", "line"), [item for section in VERBS.values() for item in section.items()]
)
def test_the_line_of_a_verb_is_how_its_own_help_begins(verb: str, line: str) -> None:
    assert COMMANDS[verb].get_short_help_str(limit=200).startswith(line.removesuffix("."))


@each_command
def test_every_option_of_a_verb_is_explained(words: str) -> None:
    silent = [
        parameter.name
        for parameter in COMMANDS[words].params
        if isinstance(parameter, click.Option) and not parameter.help and not parameter.hidden
    ]
    assert silent == []


@each_command
def test_a_verb_is_documented(words: str) -> None:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert f"epic-run {words}" in text


@each_command
def test_a_verb_that_reads_has_json_output(words: str) -> None:
    writers_of_text = {
        "shell",
        "ssh",
        "schema",
        "completion",
        # What a script or a playbook prints, as it prints it; and what goes on without a reader.
        "action logs",
        "action play",
        "action drive",
        "job logs",
        "job finish",
        "schedule drive",
        "schedule serve",
    }
    if isinstance(COMMANDS[words], click.Group):
        return
    options = {option for item in COMMANDS[words].params for option in item.opts}
    assert ("--output" in options) is (words not in writers_of_text)


def test_a_mistyped_verb_gets_a_suggestion_and_exit_code_2(epic_run) -> None:
    run = epic_run("lanch")
    assert run.returncode == 2
    assert 'Did you mean "launch"?' in run.stderr


def test_every_verb_has_a_module_of_its_name() -> None:
    modules = {path.stem for path in (ROOT / "epic_runner" / "cli").glob("*.py")}
    assert {name for verbs in VERBS.values() for name in verbs} <= modules
