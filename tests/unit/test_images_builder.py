"""The order of builds, what is skipped, and what people read when a step fails."""

# ruff: noqa: ARG002 - a fake takes what the real one takes

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from epic_runner import images
from epic_runner.catalog import Catalog, load_catalog
from epic_runner.errors import EpicError, NotFound
from epic_runner.images import builder, rootfs, sbom
from epic_runner.images.state import Freshness


class FakeEngine:
    """An engine that builds by taking notes."""

    def __init__(self) -> None:
        self.known: dict[str, images.ImageFacts] = {}
        self.built: list[str] = []
        self.contexts: list[dict[str, bytes]] = []
        self.arguments: list[Mapping[str, str]] = []
        self.fresh: list[bool] = []
        self.removed: list[str] = []
        self.registry: set[str] = set()
        self.imported: list[str] = []
        self.answers: list[Mapping[str, Any]] | None = None
        self.about: dict[str, bytes] = {"facts": b"python=3.11.2\njava=17.0.9\n"}
        self.other: Callable[[], None] | None = None
        self.turns = 0
        self._count = 0

    @contextlib.contextmanager
    def alone(self, waiting: Callable[[], None]) -> Iterator[None]:
        if self.other is not None:
            waiting()
            self.other()
        self.turns += 1
        yield

    def has(self, reference: str) -> bool:
        return reference in self.known

    def facts(self, reference: str) -> images.ImageFacts | None:
        return self.known.get(reference)

    def pull(self, reference: str, patience: float) -> bool:
        assert patience <= 10
        if reference in self.registry:
            self._add(reference, {})
        return reference in self.registry

    def import_rootfs(self, stream: IO[bytes], reference: str) -> None:
        self.imported.append(reference)
        self._add(reference, {})

    def _add(self, reference: str, labels: Mapping[str, str]) -> str:
        self._count += 1
        name = f"sha256:{self._count}"
        self.known[reference] = images.ImageFacts(name, 1000, "2026-01-01", dict(labels))
        return name

    def build(
        self,
        context: IO[bytes],
        *,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        tag: str | None,
        fresh: bool,
        host_network: bool,
    ) -> Iterator[Mapping[str, Any]]:
        assert not host_network
        with tarfile.open(fileobj=context) as archive:
            files = {}
            for member in archive:
                content = archive.extractfile(member)
                files[member.name] = content.read() if content else b""
        if tag is None:
            self.contexts.append(files)
            self.arguments.append(arguments)
            self.fresh.append(fresh)
        yield {"stream": "Step 1/2 : FROM \x1b[91mx\x1b[0m"}
        yield {"stream": "\n"}
        yield {"stream": " ---> abc\n"}
        yield {"stream": "Step 2/2 : RUN   make    it\n"}
        if self.answers is not None and tag is None:
            yield from self.answers
            return
        if tag is None:
            self._count += 1
            yield {"aux": {"ID": f"sha256:raw{self._count}"}}
        else:
            self.built.append(tag)
            yield {"aux": {"ID": self._add(tag, labels)}}

    def read_folder(self, image: str, folder: str) -> dict[str, bytes]:
        assert folder == "/usr/share/epic"
        return self.about

    def run_program(
        self, image: str, program: Path, target: str, arguments: Sequence[str], result: str
    ) -> bytes:
        assert arguments[0] == target == sbom.SCAN_PROGRAM
        return b'{"components": [{"purl": "pkg:deb/bash"}, {"purl": "pkg:pypi/numpy"}, {}]}'

    def remove(self, image: str) -> None:
        self.removed.append(image)


APPS = {"base": None, "jvm": "base", "spark": "jvm", "other": "base"}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    for name, parent in APPS.items():
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        default = "" if parent else "=debian:12-slim"
        (folder / "Dockerfile").write_text(f"ARG PARENT_IMAGE{default}\nFROM ${{PARENT_IMAGE}}\n")
        (folder / "apt.lock").write_text("bash=5\n")
        text = f"kind: App\nname: {name}\nversion: '1'\nrevision: 1\nimage: epic/{name}\n"
        text += f"label: {name}\nsummary: It is {name}.\n"
        if parent:
            text += f"parent: {parent}\n"
        (folder / "app.yml").write_text(text)
    return load_catalog(tmp_path / "images")


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.registry.add("debian:12-slim")
    return engine


@pytest.fixture(autouse=True)
def syft(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sbom, "syft", lambda: tmp_path / "syft")


def build(
    catalog: Catalog, engine: FakeEngine, *names: str, **options: Any
) -> list[images.BuiltImage]:
    return images.build(
        names,
        docker_client=engine,
        catalog=catalog,
        options=images.BuildOptions(environ={}, **options),
    )


def test_parents_are_built_first(catalog: Catalog, engine: FakeEngine) -> None:
    built = build(catalog, engine, "spark")
    assert engine.built == ["epic/base:1-r1", "epic/jvm:1-r1", "epic/spark:1-r1"]
    assert [item.app for item in built if item.built] == ["base", "jvm", "spark"]
    assert [arguments["PARENT_IMAGE"] for arguments in engine.arguments] == [
        "debian:12-slim",
        "epic/base:1-r1",
        "epic/jvm:1-r1",
    ]


def test_what_is_fresh_is_not_built_again(catalog: Catalog, engine: FakeEngine) -> None:
    build(catalog, engine)
    engine.built.clear()
    again = build(catalog, engine)
    assert engine.built == []
    assert [item.built for item in again] == [False] * 4


def test_a_changed_file_makes_an_image_and_its_children_stale(
    catalog: Catalog, engine: FakeEngine
) -> None:
    build(catalog, engine)
    engine.built.clear()
    (catalog.folder(catalog.apps["jvm"]) / "Dockerfile").write_text("FROM scratch\n")
    build(catalog, engine)
    assert engine.built == ["epic/jvm:1-r1", "epic/spark:1-r1"]


def test_a_parent_that_was_forced_takes_its_children_along(
    catalog: Catalog, engine: FakeEngine
) -> None:
    build(catalog, engine)
    engine.built.clear()
    build(catalog, engine, "base", force=True)
    assert engine.built == ["epic/base:1-r1"]
    build(catalog, engine)
    assert engine.built[1:] == ["epic/jvm:1-r1", "epic/other:1-r1", "epic/spark:1-r1"]


def test_a_fresh_image_needs_no_parents(catalog: Catalog, engine: FakeEngine) -> None:
    build(catalog, engine)
    del engine.known["epic/jvm:1-r1"], engine.known["epic/base:1-r1"]
    engine.built.clear()
    build(catalog, engine, "spark")
    assert engine.built == []


def test_builds_take_turns(catalog: Catalog, engine: FakeEngine) -> None:
    def other() -> None:
        engine.other = None
        build(catalog, engine)

    engine.other = other
    lines: list[images.BuildLine] = []
    options = images.BuildOptions(environ={})
    built = images.build(
        [], docker_client=engine, catalog=catalog, on_line=lines.append, options=options
    )
    assert [item.built for item in built] == [False] * 4
    assert "another build is at work: waiting for it" in [line.text for line in lines]
    assert len(engine.built) == 4
    # Nobody waits to learn that there is nothing to do.
    turns = engine.turns
    build(catalog, engine)
    assert engine.turns == turns


def test_force_does_without_cached_steps(catalog: Catalog, engine: FakeEngine) -> None:
    build(catalog, engine, "base")
    build(catalog, engine, "base", force=True)
    assert engine.fresh == [False, True]


def test_the_image_that_was_replaced_is_removed(catalog: Catalog, engine: FakeEngine) -> None:
    build(catalog, engine, "base")
    old = engine.known["epic/base:1-r1"].id
    build(catalog, engine, "base", force=True)
    assert engine.removed == [old]


def test_labels(catalog: Catalog, engine: FakeEngine) -> None:
    build(catalog, engine, "jvm")
    labels = engine.known["epic/jvm:1-r1"].labels
    assert labels["epic.app"] == "jvm"
    assert labels["epic.version"] == "1"
    assert labels["epic.revision"] == "1"
    assert labels["epic.python"] == "3.11.2"
    assert labels["epic.java"] == "17.0.9"
    assert len(labels["epic.lock"]) == 64
    assert labels["epic.locked"] == "true"
    assert labels["epic.parent"] == engine.known["epic/base:1-r1"].id
    assert labels["epic.parents"] == "base=1"
    assert labels["epic.sbom"] == "/usr/share/epic/sbom.cdx.json"


def test_a_package_that_is_not_served_any_more_is_told_and_labelled(
    catalog: Catalog, engine: FakeEngine
) -> None:
    engine.about["apt/base.drift"] = b"bash=5\n"
    lines: list[images.BuildLine] = []
    (built,) = images.build(
        ["base"],
        docker_client=engine,
        catalog=catalog,
        on_line=lines.append,
        options=images.BuildOptions(environ={}),
    )
    assert built.drift == ("bash=5",)
    assert engine.known["epic/base:1-r1"].labels["epic.locked"] == "false"
    assert any(line.kind == "warning" and "bash=5" in line.text for line in lines)
    # A child of an image that is not as locked is not either.
    del engine.about["apt/base.drift"]
    build(catalog, engine, "jvm")
    assert engine.known["epic/jvm:1-r1"].labels["epic.locked"] == "false"


def test_relock_installs_what_is_served_and_writes_it_down(
    catalog: Catalog, engine: FakeEngine
) -> None:
    engine.about["apt/base.lock"] = b"bash=6\n"
    build(catalog, engine, "base", relock=True)
    path = catalog.folder(catalog.apps["base"]) / "apt.lock"
    assert path.read_text() == "bash=6\n"
    assert engine.contexts[0]["apt.lock"] == b""
    engine.built.clear()
    build(catalog, engine, "base")
    assert engine.built == []


def test_without_syft_there_is_a_warning_and_no_bill(
    catalog: Catalog, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sbom, "syft", lambda: None)
    lines: list[images.BuildLine] = []
    images.build(["base"], docker_client=engine, catalog=catalog, on_line=lines.append)
    assert engine.known["epic/base:1-r1"].labels["epic.sbom"] == ""
    (warning,) = (line.text for line in lines if line.kind == "warning")
    assert "epic-runner[build]" in warning


def test_steps_and_output_are_told(catalog: Catalog, engine: FakeEngine) -> None:
    engine.answers = [
        {"stream": "\x1b[91mhello\x1b[0m\nworld\n"},
        {"aux": {"ID": "sha256:r"}},
    ]
    lines: list[images.BuildLine] = []
    images.build(["base"], docker_client=engine, catalog=catalog, on_line=lines.append)
    told = [(line.kind, line.text) for line in lines]
    assert ("step", "1/2 FROM x") in told
    assert ("step", "2/2 RUN make it") in told
    assert told.count(("output", "hello")) == 1
    assert ("output", "world") in told


@pytest.mark.parametrize(
    ("printed", "hint"),
    [
        ("curl: (60) SSL certificate problem: unable to get issuer", "EPIC_CA_BUNDLE"),
        ("Temporary failure resolving 'mirror.example.com'", "http_proxy"),
        ("connect (111: Connection refused)", "http_proxy"),
        ("write: No space left on device", "docker system prune"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "locked"),
        ("make: *** [all] Error 2", "epic-run image build base --verbose"),
    ],
)
def test_a_failing_step_shows_its_last_lines_and_a_hint(
    catalog: Catalog, engine: FakeEngine, printed: str, hint: str
) -> None:
    engine.answers = [
        {"stream": "".join(f"line {number}\n" for number in range(40))},
        {"stream": f"{printed}\n"},
        {"errorDetail": {"code": 2}, "error": "The command returned a non-zero code: 2"},
    ]
    with pytest.raises(images.BuildFailed) as caught:
        build(catalog, engine, "base")
    message = caught.value.message
    assert message.startswith("epic/base:1-r1: step 2 of 2 (RUN make it) failed; its last lines:")
    assert printed in message
    assert "line 39" in message
    assert "line 5\n" not in message
    assert hint in str(caught.value.hint)


def test_an_engine_that_ends_without_a_word_is_a_failure(
    catalog: Catalog, engine: FakeEngine
) -> None:
    engine.answers = []
    with pytest.raises(images.BuildFailed, match="without a result"):
        build(catalog, engine, "base")


def test_an_unknown_name_gets_a_suggestion(catalog: Catalog, engine: FakeEngine) -> None:
    with pytest.raises(NotFound) as caught:
        build(catalog, engine, "sparc")
    assert "spark" in str(caught.value.hint)


def test_without_a_registry_the_base_is_bootstrapped(
    catalog: Catalog, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.registry.clear()

    def bootstrap(_: object) -> None:
        engine.import_rootfs(None, rootfs.LOCAL_REFERENCE)  # type: ignore[arg-type]

    monkeypatch.setattr(rootfs, "_bootstrap", bootstrap)
    build(catalog, engine, "base")
    assert engine.arguments[0]["PARENT_IMAGE"] == "epic/rootfs:12"
    build(catalog, engine, "base", force=True)
    assert engine.imported == ["epic/rootfs:12"]


def test_a_named_base_is_taken_or_nothing(catalog: Catalog, engine: FakeEngine) -> None:
    with pytest.raises(EpicError, match="site/debian:12"):
        build(catalog, engine, "base", base="site/debian:12")
    engine.registry.add("site/debian:12")
    build(catalog, engine, "base", base="site/debian:12")
    assert engine.arguments[-1]["PARENT_IMAGE"] == "site/debian:12"


def test_a_missing_mmdebstrap_is_told(
    catalog: Catalog, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.registry.clear()
    monkeypatch.setattr(rootfs.shutil, "which", lambda _: None)
    with pytest.raises(EpicError) as caught:
        build(catalog, engine, "base")
    assert "apt-get install mmdebstrap" in str(caught.value.hint)


def test_states(catalog: Catalog, engine: FakeEngine) -> None:
    def seen() -> dict[str, Freshness]:
        return {item.app.name: item.freshness for item in images.states(catalog, engine, {})}

    assert set(seen().values()) == {Freshness.MISSING}
    build(catalog, engine, "jvm")
    (catalog.folder(catalog.apps["jvm"]) / "new").write_text("x")
    assert seen() == {
        "base": Freshness.FRESH,
        "jvm": Freshness.STALE,
        "other": Freshness.MISSING,
        "spark": Freshness.MISSING,
    }


def test_the_bill_of_materials_is_read_from_the_image(catalog: Catalog, engine: FakeEngine) -> None:
    build(catalog, engine, "base")
    state = images.states(catalog, engine, {})[0]
    assert images.package_counts(state, engine) == {}
    engine.about["sbom.cdx.json"] = engine.run_program(
        "", Path(), sbom.SCAN_PROGRAM, [sbom.SCAN_PROGRAM], ""
    )
    assert images.package_counts(state, engine) == {"deb": 1, "pypi": 1}


def test_no_bill_of_an_image_that_is_not_there(catalog: Catalog, engine: FakeEngine) -> None:
    state = images.states(catalog, engine, {})[0]
    with pytest.raises(NotFound) as caught:
        images.read_sbom(state, engine)
    assert caught.value.hint == "epic-run image build base"


def test_the_plan_of_the_real_catalogue_holds_every_dockerfile() -> None:
    catalog = load_catalog(Path(__file__).parents[2] / "images")
    plans = builder.make_plans(catalog, {})
    for plan in plans.values():
        names = {file.path for file in plan.files}
        assert {"Dockerfile", "packages", "apt.lock"} <= names
    assert [name for name, plan in plans.items() if plan.app.parent is None] == ["base"]
    parent = rootfs.default_parent(plans["base"].files)
    assert parent.startswith("debian:12")
