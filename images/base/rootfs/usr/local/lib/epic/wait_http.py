# ruff: noqa: INP001, T201 - a program of the image, no part of a package
"""Wait until a URL answers, or its JSON says what it should; a part of epic-wait."""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PAUSE = 0.1


def satisfied(data: Any, condition: list[str]) -> bool:
    """Tell whether `data` meets `condition`, a (key, operator, value) triple."""
    key, operator, wanted = condition
    value = data
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    if operator == ">=":
        return float(value) >= float(wanted)
    return (value if isinstance(value, str) else json.dumps(value)) == wanted


def missing(data: Any, wanted: list[str], where: str | None) -> list[str]:
    """Return the names that no item of a list has.

    Args:
        data: An object of JSON.
        wanted: The list's key in `data`, the key of an item's name, and the names with commas.
        where: KEY=VALUE that an item has to show as well.
    """
    items, name, names = wanted
    key, _, value = (where or "").partition("=")
    found = {item[name] for item in data[items] if not key or str(item[key]) == value}
    return [name for name in names.split(",") if name and name not in found]


def unmet(answer: str, args: argparse.Namespace) -> str | None:
    """Tell what the answer lacks of what the command line asks of it; None if nothing.

    Raises:
        ValueError, KeyError, IndexError, TypeError: It is of another shape.
    """
    if not (args.json or args.all):
        return None
    data = json.loads(answer)
    if args.json and not satisfied(data, args.json):
        return answer
    absent = missing(data, args.all, args.where) if args.all else []
    return f"{args.all[0]} lacks {', '.join(absent)}" if absent else None


def main() -> int:
    """Wait as the command line says; return the exit code."""
    args = parse()
    headers = {}
    if args.header_file:
        for line in args.header_file.read_text().splitlines():
            name, colon, value = line.partition(":")
            if colon:
                headers[name.strip()] = value.strip()
    # A proxy of the site has no business between a node and its own cluster.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = None if args.timeout is None else time.monotonic() + args.timeout
    last = "no answer yet"
    while True:
        left = 5.0 if end is None else max(0.1, min(5.0, end - time.monotonic()))
        try:
            request = urllib.request.Request(args.url, headers=headers)  # noqa: S310 - one's own
            with opener.open(request, timeout=left) as response:
                last = response.read().decode("utf-8", "replace")
            lack = unmet(last, args)
            if lack is None:
                return 0
            last = lack
        except urllib.error.HTTPError as error:
            last = f"{error.code} {error.reason}: {error.read(2000).decode('utf-8', 'replace')}"
        except OSError as error:
            last = str(error)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            last = f"{last[:2000]} ({type(error).__name__}: {error})"
        if end is not None and time.monotonic() >= end:
            print(f"epic-wait: {args.url}: {last[:4000]}", file=sys.stderr)
            return 1
        time.sleep(PAUSE)


def parse() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="epic-wait http")
    parser.add_argument("url")
    parser.add_argument("--timeout", type=float, help="seconds; default: no limit")
    parser.add_argument("--json", nargs=3, metavar=("KEY", "OP", "VALUE"))
    parser.add_argument("--all", nargs=3, metavar=("LIST", "KEY", "NAME,..."))
    parser.add_argument("--where", metavar="KEY=VALUE", help="which items of --all count")
    parser.add_argument(
        "--header-file", type=Path, help="lines 'Name: value', kept off the process list"
    )
    args = parser.parse_args()
    if args.json and args.json[1] not in ("==", ">="):
        parser.error("OP is == or >=")
    return args


if __name__ == "__main__":
    sys.exit(main())
