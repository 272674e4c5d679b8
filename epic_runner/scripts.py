"""Scripts for nodes: what is wrong with one that could run nowhere."""

from __future__ import annotations

# What a script may have; more than that belongs into the tenant's storage.
LARGEST_BYTES = 1 << 20


def flaw(name: str, script: bytes, largest_bytes: int = LARGEST_BYTES) -> tuple[str, str | None]:
    """Return what is wrong with a script, and what to do about it; an empty text if it is fine.

    Args:
        name: What people call it.
        script: Its content.
        largest_bytes: How much it may have.
    """
    if not script.strip():
        return f"{name} is empty.", None
    if len(script) > largest_bytes:
        return (
            f"{name} has {len(script)} bytes; a script may have {largest_bytes}.",
            "Put what it carries into the tenant's storage, and have a short script use it there.",
        )
    first = script.partition(b"\n")[0]
    if first.startswith(b"#!") and first.endswith(b"\r"):
        return (
            f"{name}:1: the line ends as on Windows, and no interpreter is called so.",
            f"sed -i 's/\\r$//' {name}",
        )
    if first.startswith(b"#!") and not first[2:].strip().startswith(b"/"):
        text = first.decode("utf-8", "replace")
        return f"{name}:1: {text} is no path of an interpreter.", "#!/usr/bin/env python3, say."
    return "", None
