"""docs/cli.md is what the verbs say of themselves."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType


def test_the_page_on_the_command_line_is_fresh(load_script: Callable[[str], ModuleType]) -> None:
    script = load_script("cli_docs")
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), (
        "run: python scripts/cli_docs.py"
    )
