"""The storage of tenants: what Docker is asked to make of it, and what hosts see of it."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from content_modules import load, utility, volumes

from epic_runner.docker_api import place_of
from epic_runner.errors import InputError
from epic_runner.host_inventory import Entry
from epic_runner.hosting import storage_findings
from epic_runner.hosts import local_host
from epic_runner.site import arrange

storage = load("epic_storage", "library/epic_storage.py")
tenant = load("epic_tenant", "library/epic_tenant.py")
hosts = load("hosts_filters", "filter_plugins/hosts.py")

FOLDER = {"type": "none", "o": "bind", "device": "/srv/shared/work"}
SEEN: dict[str, Any] = {
    "kind": "folder", "place": "/srv/shared", "error": "", "mark": "m1", "writable": True,
    "elsewhere": {},
}  # fmt: skip
NFS: dict[str, Any] = {"kind": "nfs", "place": "/x of the NFS server s", "error": "",
                       "server": "open", "elsewhere": {}}  # fmt: skip
NONE: dict[str, Any] = {"kind": "none", "place": "", "error": "", "elsewhere": {}}


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ("", {}),
        ("/srv/shared", FOLDER),
        ("/srv//shared/", FOLDER),
        ("nfs://files/export",
         {"type": "nfs", "o": "addr=files,rw,nfsvers=4", "device": ":/export/work"}),
        ("nfs://192.0.2.9:2050/?nfsvers=4.1&soft,timeo=50",
         {"type": "nfs", "o": "addr=192.0.2.9,rw,port=2050,nfsvers=4.1,soft,timeo=50",
          "device": ":/work"}),
        ("nfs://[2001:db8::1]/a/b?vers=3",
         {"type": "nfs", "o": "addr=2001:db8::1,rw,vers=3", "device": ":/a/b/work"}),
    ],
)  # fmt: skip
def test_a_tenants_volume_is_its_folder_of_the_storage(given: str, options: dict[str, str]) -> None:
    assert volumes.volume_options(given, "work") == options
    assert not volumes.is_other({"Options": options or None}, given, "work")
    assert volumes.is_other({"Options": {**options, "o": "other"}}, given, "work")


@pytest.mark.parametrize("given", ["srv/shared", "ftp://x/y", "nfs://", "nfs://files", "/"])
def test_what_is_no_storage_is_refused_with_the_host(given: str) -> None:
    with pytest.raises(InputError, match=r"epic_storage of host h1 is .*neither a folder"):
        arrange({"h1": Entry("h1", {"epic_storage": given})}, {}, [])
    if given != "/":
        with pytest.raises(volumes.StorageError, match="neither a folder nor an export"):
            volumes.volume_options(given, "work")


def test_one_machine_has_its_storage_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPIC_STORAGE", "/mnt/large")
    assert local_host().variables["epic_storage"] == "/mnt/large"
    monkeypatch.setenv("EPIC_STORAGE", "large")
    with pytest.raises(InputError, match="EPIC_STORAGE is 'large'"):
        local_host()
    monkeypatch.delenv("EPIC_STORAGE")
    assert "epic_storage" not in local_host().variables


def test_the_whole_export_is_mounted_to_make_a_tenants_folder() -> None:
    whole = [volumes.volume_options(f"nfs://files{path}")["device"] for path in ("/", "/a", "/a/")]
    assert whole == [":/", ":/a", ":/a"]
    told = volumes.unmountable(volumes.volume_options("nfs://files/a"), "x: no such device")
    assert "modprobe nfs" in told.hint


def test_places_are_told_to_people() -> None:
    nfs = volumes.volume_options("nfs://files/export", "work")
    assert volumes.described(nfs) == "/export/work of the NFS server files"
    assert volumes.described(FOLDER) == "/srv/shared/work"
    assert volumes.described(None) == "a volume of this host alone"
    assert [place_of({"Options": options}) for options in (None, FOLDER, nfs)] == [
        "", "/srv/shared/work", "files:/export/work",
    ]  # fmt: skip


class Engine:
    """An engine that has volumes, and containers that end with a code."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.there: list[dict[str, Any]] = []
        self.made: list[dict[str, Any]] = []

    def request(self, method: str, url: str, body: Any = None, query: Any = None, *,
                missing_ok: bool = False) -> Any:  # fmt: skip
        del query, missing_ok
        if (method, url) == ("GET", "/volumes"):
            return {"Volumes": self.there}
        if url.endswith("/create"):
            self.made.append(body)
            return {"Id": "helper"}
        if url.endswith("/start") and self.code < 0:
            said = "failed to mount local volume: mount /x:/y, flags: 0x1000: no such device"
            raise utility.DockerError(500, f"error while mounting volume '/y': {said}")
        return {"StatusCode": self.code} if url.endswith("/wait") else None


def ensure(engine: Engine, where: str = "/srv/shared") -> dict[str, str]:
    volume = {"name": "epic.work.storage", "storage": where, "marks": False}
    made: dict[str, str] = volumes.ensure_volume(engine, volume, "work", "image")
    return made


def test_the_folder_is_made_before_the_volume_and_once() -> None:
    engine = Engine()
    assert ensure(engine) == FOLDER
    helper, volume = engine.made
    assert helper["Cmd"][:2] == ["work", "keep"]
    assert helper["HostConfig"]["Mounts"][0]["VolumeOptions"]["DriverConfig"]["Options"] == {
        **FOLDER, "device": "/srv/shared",
    }  # fmt: skip
    assert volume == {
        "Name": "epic.work.storage", "Labels": {"epic.tenant": "work"}, "DriverOpts": FOLDER,
    }  # fmt: skip
    engine.there = [{"Name": "epic.work.storage", "Options": FOLDER}]
    ensure(engine)
    assert len(engine.made) == 2


def test_a_host_without_a_storage_in_common_has_a_volume_of_its_own() -> None:
    engine = Engine()
    assert ensure(engine, "") == {}
    assert [item["Name"] for item in engine.made] == ["epic.work.storage"]


@pytest.mark.parametrize(
    ("code", "says"),
    [(3, "is not marked as the storage"), (4, "holds other files"), (1, "no folder for tenant"),
     (-1, "/srv/shared cannot be mounted: no such device$")],
)  # fmt: skip
def test_why_there_can_be_no_folder_is_told_with_the_mend(code: int, says: str) -> None:
    engine = Engine(code)
    with pytest.raises(volumes.StorageError, match=says) as refused:
        ensure(engine)
    assert refused.value.hint
    assert len(engine.made) == 1


def test_a_volume_that_has_its_files_elsewhere_is_left_alone() -> None:
    engine = Engine()
    engine.there = [{"Name": "epic.work.storage", "Options": None}]
    with pytest.raises(volumes.StorageError, match="a volume of this host alone here") as refused:
        ensure(engine)
    assert "docs/hosts.md" in refused.value.hint
    assert engine.made == []


def test_what_is_removed_of_a_tenant_is_its_own_folder_wherever_it_is() -> None:
    params = {"tenant": "work", "storage": "nfs://files/export"}
    nfs = volumes.volume_options("nfs://files/export", "work")
    found = [{"Options": FOLDER}, {"Options": None}, {"Options": nfs}]
    assert tenant.shared_folders(found, params) == [FOLDER, nfs]
    other = {"Options": {**FOLDER, "device": "/srv/shared/theirs"}}
    assert tenant.shared_folders([other], {**params, "storage": ""}) == []


def shell(folder: Path, script: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a script as in a container that sees a folder as the storage."""
    group = f"chgrp {os.getgid()}"
    text = script.replace("/storage", str(folder)).replace(f"chgrp {volumes.GROUP}", group)
    return subprocess.Popen(["/bin/sh", "-c", text, "sh", *arguments])


def test_hosts_that_make_a_tenants_folder_at_once_make_one(tmp_path: Path) -> None:
    assert shell(tmp_path, volumes.MAKE, "work", "keep", "a").wait() == volumes.NOT_MARKED
    made = [shell(tmp_path, volumes.MAKE, "work", "mark", f"m{number}") for number in range(12)]
    assert [process.wait() for process in made] == [0] * 12
    assert sorted(path.name for path in tmp_path.iterdir()) == [".epic-storage", "work"]
    assert stat.S_IMODE((tmp_path / "work").stat().st_mode) == 0o2770
    # It may be anybody's where nobody has marked it.
    (tmp_path / ".epic-storage").unlink()
    assert shell(tmp_path, volumes.MAKE, "home", "mark", "b").wait() == volumes.NOT_EMPTY
    assert shell(tmp_path, volumes.ERASE, "work", "c").wait() == 0
    assert (tmp_path / "work").is_dir()


def test_hosts_that_erase_a_tenants_folder_at_once_erase_nothing_else(tmp_path: Path) -> None:
    shell(tmp_path, volumes.MAKE, "work", "mark", "a").wait()
    for name in ("work", "work-2", ".epic-gone.work.cut-off"):
        for part in range(60):
            (tmp_path / name / str(part)).mkdir(parents=True)
    gone = [shell(tmp_path, volumes.ERASE, "work", str(number)) for number in range(6)]
    assert [process.wait() for process in gone] == [0] * 6
    assert sorted(path.name for path in tmp_path.iterdir()) == [".epic-storage", "work-2"]


def test_a_folder_is_marked_once_and_only_an_empty_one(tmp_path: Path) -> None:
    def run(state: str, *, check: bool = False) -> Any:
        return storage.run({"storage": str(tmp_path), "state": state}, check)

    assert run("seen")["storage"]["mark"] == ""
    assert run("marked", check=True)["storage"]["mark"] == ""
    (tmp_path / "lost+found").mkdir()
    made = run("marked")
    assert made["changed"]
    assert made["storage"]["mark"]
    (tmp_path / "work").mkdir()
    assert run("marked") == {"changed": False, "storage": made["storage"]}
    assert run("unmarked")["storage"]["mark"] == ""
    refused = run("marked")
    assert refused["failed"]
    assert "holds other files (work)" in refused["msg"]
    gone = storage.run({"storage": f"{tmp_path}/none", "state": "marked"}, check_mode=False)
    assert gone["storage"]["error"] == "there is no such folder"


def test_hosts_that_see_another_storage_than_the_first_are_found() -> None:
    def seen(mark: str) -> dict[str, Any]:
        return {"__docker_host_storage": {"storage": {"mark": mark}}}

    variables = {"h1": seen("m1"), "h2": seen("m1"), "h3": seen(""), "h4": {}}
    assert hosts.other_storage(list(variables), variables, "h1") == ["h3"]
    assert hosts.other_storage(list(variables), variables, "h4") == ["h3"]
    export = {"h1": {"__docker_host_storage": {"storage": {"kind": "nfs"}}}}
    assert hosts.other_storage(["h1"], export, "h1") == []


@pytest.mark.parametrize(
    ("second", "what"),
    [
        (SEEN, None),
        ({**SEEN, "mark": ""}, "is not marked"),
        ({**SEEN, "mark": "m2"}, "is another folder than that of h1"),
        ({**SEEN, "error": "there is no such folder", "mark": ""}, "is not usable"),
        ({**SEEN, "writable": False}, "Root cannot write"),
        ({**SEEN, "writable": None}, None),
        ({**SEEN, "elsewhere": {"work": "a volume"}}, r"work \(a volume\)"),
        (NONE, "It has no epic_storage"),
        (NFS, None),
        ({**NFS, "server": "timed out"}, "does not answer: timed out"),
    ],
)  # fmt: skip
def test_what_is_amiss_with_the_storage_of_a_host_is_found(
    second: dict[str, Any], what: str | None
) -> None:
    found = list(storage_findings({"h1": SEEN, "h2": second}))
    assert [item.host for item in found] == (["h2"] if what else [])
    for item in found:
        assert item.mend
        assert re.search(what or "", item.what)


def test_hosts_without_a_storage_in_common_are_told_so_but_not_to_mend_it() -> None:
    found = list(storage_findings({"h1": NONE, "h2": NONE}))
    assert [(item.host, item.mend) for item in found] == [("h1", ""), ("h2", "")]
    assert list(storage_findings({"h1": NONE})) == []
