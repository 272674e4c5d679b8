"""Closures made plain: only what a class archive cannot hold is changed, nothing else."""

from __future__ import annotations

import importlib.util
import struct
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = "images/spark/rootfs/usr/local/lib/epic/plain_lambdas.py"
SERIALIZABLE, MARKERS, BRIDGES = 1, 2, 4


def load() -> ModuleType:
    path = Path(__file__).parents[2] / SOURCE
    spec = importlib.util.spec_from_file_location("plain_lambdas", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plain_lambdas = load()


class Pool:
    """The constant pool of a class file in the making."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.count = 1

    def add(self, tag: int, data: bytes) -> int:
        self.entries.append(bytes([tag]) + data)
        index = self.count
        self.count += 2 if tag in (5, 6) else 1
        return index

    def text(self, text: str) -> int:
        return self.add(1, struct.pack(">H", len(text)) + text.encode())

    def type(self, text: str) -> int:
        return self.add(16, struct.pack(">H", self.text(text)))

    def number(self, number: int) -> int:
        return self.add(3, struct.pack(">i", number))

    def handle(self, owner: str, name: str) -> int:
        owner_index = self.add(7, struct.pack(">H", self.text(owner)))
        pair = self.add(12, struct.pack(">HH", self.text(name), self.text("()V")))
        method = self.add(10, struct.pack(">HH", owner_index, pair))
        return self.add(15, struct.pack(">BH", 6, method))


def make_class(*, bridge: str, owner: str = "java/lang/invoke/LambdaMetafactory") -> bytes:
    """Return a class with a field, a method and two bootstrap methods, the second a closure's."""
    pool = Pool()
    pool.add(5, b"\0" * 8)  # a long: it takes two places
    code, field = pool.text("Code"), pool.text("f")
    other = pool.handle("some/Factory", "make")
    alt = pool.handle(owner, "altMetafactory")
    arguments = [
        pool.type("()Ljava/lang/Object;"),
        pool.handle("some/Closure", "apply"),
        pool.type("()Ljava/lang/String;"),
        pool.number(SERIALIZABLE | MARKERS | BRIDGES),
        pool.number(1),
        pool.add(7, struct.pack(">H", pool.text("scala/Serializable"))),
        pool.number(1),
        pool.type(bridge),
    ]
    table = struct.pack(">H", 2)
    table += struct.pack(">HHH", other, 1, arguments[0])
    table += struct.pack(">HH8H", alt, 8, *arguments)
    name = pool.text("BootstrapMethods")
    source = pool.text("SourceFile")
    member = struct.pack(">HHHHH", 1, field, field, 1, code) + struct.pack(">I", 3) + b"abc"
    return (
        struct.pack(">IHHH", 0xCAFEBABE, 0, 52, pool.count)
        + b"".join(pool.entries)
        + struct.pack(">HHHHH", 33, 1, 1, 1, 1)  # access, this, super, one interface
        + struct.pack(">H", 1)
        + member
        + struct.pack(">H", 1)
        + member
        + struct.pack(">H", 3)
        + struct.pack(">HIH", source, 2, field)
        + struct.pack(">HI", name, len(table))
        + table
        + struct.pack(">HIH", source, 2, field)
    )


def bootstraps(data: bytes) -> list[tuple[str, int]]:
    """Return the name of each bootstrap method of a class, and how many arguments it gets."""
    pool = plain_lambdas.Pool(data)
    at = plain_lambdas.bootstrap_attribute(data, pool) + 6
    found = []
    count, at = plain_lambdas.u2(data, at), at + 2
    for _ in range(count):
        handle, arguments = plain_lambdas.u2(data, at), plain_lambdas.u2(data, at + 2)
        method = pool._entries[plain_lambdas.u2(pool._entries[handle][1], 1)][1]  # noqa: SLF001
        found.append((pool.named(plain_lambdas.u2(method, 2)).decode(), arguments))
        at += 4 + 2 * arguments
    return found


def test_a_closure_becomes_plain() -> None:
    data = make_class(bridge="()Ljava/lang/String;")
    changed, made = plain_lambdas.rewrite(data)
    assert made == 1
    assert bootstraps(data) == [("make", 1), ("altMetafactory", 8)]
    assert bootstraps(changed) == [("make", 1), ("metafactory", 3)]
    # What comes before the pool's end and after the table stays; so do indices.
    end = plain_lambdas.Pool(data).end
    assert changed[10:end] == data[10:end]
    assert changed.endswith(data[-8:])
    assert plain_lambdas.rewrite(changed) == (changed, 0)


@pytest.mark.parametrize(
    "data",
    [
        make_class(bridge="(I)Ljava/lang/Object;"),
        make_class(bridge="()Ljava/lang/String;", owner="some/other/Factory"),
        b"\xca\xfe\xba\xbe and no closures",
    ],
    ids=["a bridge that is needed", "another factory", "no factory at all"],
)
def test_anything_else_stays_as_it_is(data: bytes) -> None:
    assert plain_lambdas.rewrite(data) == (data, 0)


def test_a_jar_is_copied_whole(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.jar", "w") as jar:
        jar.writestr("META-INF/services/x.Y", "x.Z\n")
        jar.writestr("x/Z.class", make_class(bridge="()Ljava/lang/String;"))
    assert plain_lambdas.copy(str(tmp_path / "a.jar"), str(tmp_path / "b.jar")) == 1
    with zipfile.ZipFile(tmp_path / "b.jar") as jar:
        assert jar.namelist() == ["META-INF/services/x.Y", "x/Z.class"]
        assert jar.read("META-INF/services/x.Y") == b"x.Z\n"
        assert bootstraps(jar.read("x/Z.class"))[1] == ("metafactory", 3)
