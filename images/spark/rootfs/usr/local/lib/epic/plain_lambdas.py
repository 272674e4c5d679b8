# ruff: noqa: INP001 - a program of the image, no part of a package
"""Copies a jar of Scala classes with plain closures, so that a class archive can hold them.

Scala compiles every closure to a serializable lambda, by `LambdaMetafactory.altMetafactory`. The
JVM keeps only plain ones (`metafactory`) in class data archives, so at each start of a daemon it
would spin, verify and define some 350 classes anew: a fifth of all its work until it is ready.
Masters and workers never serialize closures. Their copies of the jars get plain lambdas; drivers
and executors run the jars as they were released.

Only `BootstrapMethods` and the constant pool change (JVM specification, 4.4 and 4.7.23): where
`altMetafactory` asks for no more than serializability, marker interfaces and bridges that repeat
the instantiated type (which no caller of an erased interface uses), its first three arguments are
those of `metafactory`.

    plain_lambdas.py SOURCE.jar TARGET.jar
"""

from __future__ import annotations

import struct
import sys
import zipfile

FACTORY = b"java/lang/invoke/LambdaMetafactory"
ALT = b"altMetafactory"
PLAIN = b"metafactory"
PLAIN_TYPE = (
    b"(Ljava/lang/invoke/MethodHandles$Lookup;Ljava/lang/String;Ljava/lang/invoke/MethodType;"
    b"Ljava/lang/invoke/MethodType;Ljava/lang/invoke/MethodHandle;Ljava/lang/invoke/MethodType;)"
    b"Ljava/lang/invoke/CallSite;"
)

# Tags of the constant pool, and the bytes after the tag of those of fixed length.
UTF8, INTEGER, LONG, DOUBLE, METHODREF, NAME_AND_TYPE, METHOD_HANDLE = 1, 3, 5, 6, 10, 12, 15
LENGTHS = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2}
LENGTHS |= {17: 4, 18: 4, 19: 2, 20: 2}
INVOKE_STATIC = 6

SERIALIZABLE, MARKERS, BRIDGES = 1, 2, 4


def u2(data: bytes, at: int = 0) -> int:
    """Return the two-byte number at `at`."""
    return int(struct.unpack_from(">H", data, at)[0])


def u4(data: bytes, at: int = 0) -> int:
    """Return the four-byte number at `at`."""
    return int(struct.unpack_from(">I", data, at)[0])


class Pool:
    """The constant pool of a class file.

    Attributes:
        count: Its count as the class file has it: one more than the last index.
        end: Where it ends in the class file.
    """

    def __init__(self, data: bytes) -> None:
        self.count = u2(data, 8)
        self._entries: dict[int, tuple[int, bytes]] = {}
        at, index = 10, 1
        while index < self.count:
            tag = data[at]
            at += 1
            length = 2 + u2(data, at) if tag == UTF8 else LENGTHS[tag]
            self._entries[index] = (tag, data[at : at + length])
            at += length
            index += 2 if tag in (LONG, DOUBLE) else 1
        self.end = at

    def text(self, index: int) -> bytes:
        """Return an entry of text."""
        return self._entries[index][1][2:]

    def named(self, index: int) -> bytes:
        """Return the text that an entry (class, method type, name and type) refers to first."""
        return self.text(u2(self._entries[index][1]))

    def number(self, index: int) -> int:
        """Return an integer entry."""
        return u4(self._entries[index][1])

    def alt_factory(self, handle: int) -> int | None:
        """Return the index of the factory's class if a method handle is `altMetafactory`."""
        tag, data = self._entries[handle]
        if tag != METHOD_HANDLE:
            return None
        method = self._entries[u2(data, 1)][1]
        if self.named(u2(method)) != FACTORY or self.named(u2(method, 2)) != ALT:
            return None
        return u2(method)


def plain(pool: Pool, arguments: tuple[int, ...]) -> bool:
    """Tell whether the arguments of an `altMetafactory` ask for nothing that a daemon needs."""
    flags, rest = pool.number(arguments[3]), arguments[4:]
    if flags & MARKERS:
        rest = rest[1 + pool.number(rest[0]) :]
    bridges = rest[1:] if flags & BRIDGES else ()
    instantiated = pool.named(arguments[2])
    return all(pool.named(bridge) == instantiated for bridge in bridges)


def bootstrap_attribute(data: bytes, pool: Pool) -> int | None:
    """Return where the attribute `BootstrapMethods` of a class begins; None if it has none."""
    at = pool.end + 6
    at += 2 + 2 * u2(data, at)
    for _ in ("fields", "methods"):
        count, at = u2(data, at), at + 2
        for _ in range(count):
            attributes, at = u2(data, at + 6), at + 8
            for _ in range(attributes):
                at += 6 + u4(data, at + 2)
    count, at = u2(data, at), at + 2
    for _ in range(count):
        if pool.text(u2(data, at)) == b"BootstrapMethods":
            return at
        at += 6 + u4(data, at + 2)
    return None


def rewrite(data: bytes) -> tuple[bytes, int]:
    """Return a class file with plain lambdas, and how many were made plain."""
    if ALT not in data:
        return data, 0
    pool = Pool(data)
    start = bootstrap_attribute(data, pool)
    if start is None:
        return data, 0
    # Five entries are added: two texts, a name and type, the method, its handle.
    name, kind, name_and_type, method, new_handle = range(pool.count, pool.count + 5)
    methods = u2(data, start + 6)
    table = struct.pack(">H", methods)
    at, made, factory = start + 8, 0, 0
    for _ in range(methods):
        handle, number = u2(data, at), u2(data, at + 2)
        arguments = struct.unpack_from(f">{number}H", data, at + 4)
        at += 4 + 2 * number
        found = pool.alt_factory(handle)
        if found is not None and plain(pool, arguments):
            handle, arguments, factory = new_handle, arguments[:3], found
            made += 1
        table += struct.pack(f">HH{len(arguments)}H", handle, len(arguments), *arguments)
    if not made:
        return data, 0
    added = b"".join((
        struct.pack(">BH", UTF8, len(PLAIN)) + PLAIN,
        struct.pack(">BH", UTF8, len(PLAIN_TYPE)) + PLAIN_TYPE,
        struct.pack(">BHH", NAME_AND_TYPE, name, kind),
        struct.pack(">BHH", METHODREF, factory, name_and_type),
        struct.pack(">BBH", METHOD_HANDLE, INVOKE_STATIC, method),
    ))  # fmt: skip
    return (
        data[:8]
        + struct.pack(">H", pool.count + 5)
        + data[10 : pool.end]
        + added
        + data[pool.end : start + 2]
        + struct.pack(">I", len(table))
        + table
        + data[at:]
    ), made


def copy(source: str, target: str) -> int:
    """Copy a jar with plain lambdas; return how many there are."""
    total = 0
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith(".class"):
                data, made = rewrite(data)
                total += made
            new.writestr(entry, data, compress_type=zipfile.ZIP_DEFLATED)
    return total


if __name__ == "__main__":
    print(f"{sys.argv[2]}: {copy(sys.argv[1], sys.argv[2])} plain lambdas")  # noqa: T201
