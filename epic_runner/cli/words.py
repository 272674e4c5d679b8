"""Command lines whose last words are a script's or program's own."""

from __future__ import annotations

from collections.abc import Callable

import click


class WithArguments(click.Command):
    """A command whose options may stand anywhere before its second word; what follows is that's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Close our part of the line behind the second word that is no option."""
        return super().parse_args(ctx, closed_behind(args, 2, self._takes_value))

    def _takes_value(self, option: str) -> bool:
        return any(
            option in parameter.opts and not getattr(parameter, "is_flag", False)
            for parameter in self.params
        )


def closed_behind(args: list[str], words: int, takes_value: Callable[[str], bool]) -> list[str]:
    """Return a command line with `--` behind its first so many words that are no options.

    A `--` that stands there already is not doubled.
    """
    rest = iter(enumerate(args))
    for position, arg in rest:
        if arg == "--":
            break
        if arg.startswith("-") and arg != "-":
            if takes_value(arg):
                next(rest, None)
            continue
        words -= 1
        if words == 0:
            if args[position + 1 : position + 2] == ["--"]:
                break
            return [*args[: position + 1], "--", *args[position + 1 :]]
    return args


def pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    """Return options of the form NAME=VALUE as a dictionary.

    Raises:
        click.UsageError: One is of another form.
    """
    found = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals:
            raise click.UsageError(f"{option} {item}: KEY=VALUE is wanted.")
        found[key] = value
    return found
