"""Texts that Ansible takes as they are: what people wrote is never a template on the controller.

A text of an inventory is one that Ansible trusts, and runs as a template where it looks like one.
No member of a tenant may run Jinja on the controller by an action's argument, and a harmless
`${#PATH}` must not be taken for the beginning of a comment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

# What makes a text a template: Jinja's three openings, and the line that names others.
_LOOKS_LIKE_TEMPLATE = re.compile(r"\{[{%#]|\A#jinja2:")
# How inventories in JSON say it; those in YAML have the tag `!unsafe`.
_KEY = "__ansible_unsafe"


def literal(value: Any) -> Any:
    """Return data for an inventory in JSON, with every text that looks like a template marked."""
    if isinstance(value, str):
        return {_KEY: value} if _LOOKS_LIKE_TEMPLATE.search(value) else value
    if isinstance(value, Mapping):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [literal(item) for item in value]
    return value


class _Unsafe(str):
    """A text that YAML writes with the tag by which Ansible knows that it is no template."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Writes such texts."""


_Dumper.add_representer(_Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", text))


def inventory_yaml(data: Mapping[str, Any]) -> str:
    """Return an inventory as YAML, in the order of its keys."""
    return yaml.dump(_tagged(data), Dumper=_Dumper, sort_keys=False)


def _tagged(value: Any) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {_KEY}:
            return _Unsafe(value[_KEY])
        return {key: _tagged(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    return value
