"""What `doctor` makes of facts, and how it reads them."""

from __future__ import annotations

import dataclasses
import json
import re
import sqlite3
from dataclasses import replace

import pytest
from click.testing import CliRunner

from epic_runner import doctor, doctor_facts
from epic_runner.catalog import load_catalog
from epic_runner.cli import cli
from epic_runner.doctor import (
    GIB,
    CatalogFacts,
    ClockFacts,
    DiskFacts,
    DnsFacts,
    EngineFacts,
    Facts,
    Finding,
    FirewallFacts,
    ImageFacts,
    MemoryFacts,
    PortFacts,
    ProgramFacts,
    State,
    StoreFacts,
)
from epic_runner.hosts import local_host
from epic_runner.images.builder import LABEL_LOCK, make_plans
from epic_runner.resources import content_root
from epic_runner.store.schema import HEAD

ENGINE = EngineFacts(
    address="unix:///var/run/docker.sock",
    version="20.10.24",
    api_version="1.41",
    storage_driver="overlay2",
    backing_filesystem="extfs",
    cgroup_driver="systemd",
    cgroup_version="2",
    limits={"memory": True, "swap": True, "cpu": True, "pids": True},
    live_restore=False,
    root="/var/lib/docker",
)
IMAGE = ImageFacts("spark", "epic/spark:3.5.9-r1", present=True, fresh=True)
SOUND = Facts(
    programs=ProgramFacts((3, 11, 2), "2.19.14", "4.8.5"),
    engine=ENGINE,
    disk=DiskFacts("/var/lib/docker", 100 * GIB, 50 * GIB),
    memory=MemoryFacts(24 * GIB, 20 * GIB),
    clock=ClockFacts(synchronized=True, engine_skew_seconds=0.0),
    dns=DnsFacts("vm", "192.0.2.7", ("192.0.2.53",)),
    catalog=CatalogFacts((IMAGE,)),
    store=StoreFacts("/home/ada/store.db", revision=HEAD, head=HEAD),
    ports=PortFacts(20000, 29999, 3, (32768, 60999)),
)


def finding(facts: Facts, check: str) -> Finding:
    [found] = [item for item in doctor.judge(facts) if item.check == check]
    return found


def changed(part: str, **values: object) -> Facts:
    return dataclasses.replace(SOUND, **{part: dataclasses.replace(getattr(SOUND, part), **values)})


def test_a_sound_machine_has_nothing_to_mend() -> None:
    findings = doctor.judge(SOUND)
    assert [(item.check, item.mend) for item in findings if item.state != State.OK] == []
    assert all(item.mend is None for item in findings)
    assert doctor.worst(findings) == State.OK


def test_every_check_has_a_name_of_its_own() -> None:
    names = [item.check for item in doctor.judge(SOUND)]
    assert len(names) == len(set(names)) == 13


@pytest.mark.parametrize(
    ("facts", "check", "state", "seen", "mend"),
    [
        (changed("programs", python=(3, 10, 1)), "python", "fail", "3.10.1", "3.11 to 3.13"),
        (changed("programs", python=(3, 14, 0)), "python", "fail", "3.14.0", "3.11 to 3.13"),
        (changed("programs", ansible_core=None), "ansible", "fail", "not installed", "quickstart"),
        (changed("programs", ansible_core="2.18.1"), "ansible", "warn", "2.18.1", "lock"),
        (changed("programs", ansible_core="2.20.0rc1"), "ansible", "warn", "2.20.0rc1", "lock"),
        (changed("programs", docker_collection=None), "collection", "warn", "ad-hoc", "install"),
        (
            changed("engine", error="Connection refused"),
            "docker",
            "fail",
            "no engine answers at unix:///var/run/docker.sock: Connection refused",
            "systemctl start docker",
        ),
        (
            changed("engine", error="Permission denied"),
            "docker",
            "fail",
            "Permission denied",
            "usermod -aG docker",
        ),
        (changed("engine", api_version="1.40"), "docker", "fail", "API 1.40", "20.10"),
        (changed("engine", storage_driver="vfs"), "storage", "warn", "vfs", "overlay2"),
        (
            changed("engine", limits={"memory": False, "pids": False}),
            "limits",
            "fail",
            "memory and pids",
            "cgroup",
        ),
        (changed("engine", limits={"swap": False}), "limits", "warn", "swap", "swapaccount"),
        (changed("disk", free_bytes=10 * GIB - 1), "disk", "warn", "/var/lib/docker", "prune"),
        (changed("disk", free_bytes=2 * GIB - 1), "disk", "fail", "free of 100g", "prune"),
        (changed("memory", available_bytes=GIB), "memory", "warn", "1g available", "stop"),
        (changed("memory", total_bytes=GIB), "memory", "fail", "of 1g", "2g"),
        (changed("clock", synchronized=False), "clock", "warn", "no time service", "chrony"),
        (changed("clock", engine_skew_seconds=-2.5), "clock", "warn", "-2.5 s", "both"),
        (changed("clock", engine_skew_seconds=61.0), "clock", "fail", "+61.0 s", "both"),
        (changed("dns", host_address=None), "dns", "warn", "vm does not resolve", "/etc/hosts"),
        (changed("dns", nameservers=("::1",)), "dns", "warn", "::1", "/etc/resolv.conf"),
        (changed("dns", nameservers=()), "dns", "warn", "nameservers: none", "/etc/resolv.conf"),
        (changed("dns", engine_nameservers=("127.0.0.1",)), "dns", "warn", "itself", "out"),
        (changed("dns", lost=("a-m-1: a-w-1",)), "dns", "fail", "a-m-1: a-w-1", "restart docker"),
        (changed("store", error="file is not a database"), "store", "fail", "not a", "repair"),
        (changed("store", writable=False), "store", "fail", "written", "EPIC_HOME"),
        (changed("store", free_bytes=1), "store", "fail", "only 1 free", "room"),
        (changed("store", free_bytes=1, error="disk I/O error"), "store", "fail", "only 1", "room"),
        (changed("store", revision="0000"), "store", "warn", "0000", "moves it on"),
        (changed("ports", taken=9960), "ports", "warn", "40 of 10000", "Destroy"),
        (changed("ports", taken=10000), "ports", "fail", "0 of 10000", "Destroy"),
        (changed("ports", outgoing=(1024, 65535)), "ports", "warn", "outgoing", "reserved_ports"),
    ],
)
def test_what_is_wrong_is_told_with_its_mend(
    facts: Facts, check: str, state: str, seen: str, mend: str
) -> None:
    found = finding(facts, check)
    assert found.state == state
    assert seen in found.seen
    assert mend in (found.mend or "")
    assert doctor.worst(doctor.judge(facts)) == state


@pytest.mark.parametrize(
    ("change", "seen", "mend"),
    [
        ({"present": False, "fresh": False}, "not built yet: spark", "epic-run image build"),
        ({"fresh": False}, "other files", "epic-run image build"),
    ],
)
def test_an_image_that_is_not_as_its_files_want_is_a_warning(
    change: dict[str, object], seen: str, mend: str
) -> None:
    image = dataclasses.replace(IMAGE, **change)
    found = finding(changed("catalog", images=(image,)), "images")
    assert found.state == State.WARN
    assert seen in found.seen
    assert mend in (found.mend or "")


def test_a_node_with_an_older_build_of_its_image_is_a_warning() -> None:
    found = finding(changed("catalog", outdated_nodes=("lab worker-1",)), "images")
    assert found.state == State.WARN
    assert "lab worker-1" in found.seen
    assert "homes do not" in (found.mend or "")


def test_a_node_with_an_earlier_image_is_a_warning_that_says_what_stays() -> None:
    found = finding(changed("catalog", revised_nodes=("lab worker-1",)), "images")
    assert (found.state, found.seen) == (State.WARN, "nodes with an earlier image: lab worker-1")
    assert "epic-run launch of the cluster's template" in (found.mend or "")
    assert "/data with homes and logs, and /tenant, stay" in (found.mend or "")
    both = finding(
        changed("catalog", revised_nodes=("lab worker-1",), outdated_nodes=("old worker-1",)),
        "images",
    )
    assert "lab worker-1" in both.seen
    assert "old worker-1" in both.seen


def test_a_store_that_was_not_made_yet_is_no_failure() -> None:
    assert finding(changed("store", exists=False, revision=None), "store").state == State.OK


@pytest.mark.parametrize("servers", [("127.0.0.1", "fe80::1%eth0"), ("127.0.0.53",)])
def test_a_loopback_nameserver_is_no_failure_since_docker_asks_it_itself(
    servers: tuple[str, ...],
) -> None:
    found = finding(changed("dns", nameservers=servers), "dns")
    assert found.state == State.OK
    assert servers[0] in found.seen


def test_the_engines_own_nameservers_are_those_that_containers_ask(tmp_path) -> None:
    settings = tmp_path / "daemon.json"
    settings.write_text('{"dns": ["192.0.2.99"]}')
    named = doctor_facts.dns_facts((), settings=settings).engine_nameservers
    assert named == ("192.0.2.99",)
    found = finding(changed("dns", nameservers=(), engine_nameservers=named), "dns")
    assert found.state == State.OK
    assert "containers ask 192.0.2.99" in found.seen
    settings.write_text("[")
    assert doctor_facts.dns_facts((), settings=settings).engine_nameservers == ()


def test_without_an_engine_its_other_checks_say_nothing() -> None:
    checks = {item.check for item in doctor.judge(changed("engine", error="gone"))}
    assert "docker" in checks
    assert not checks & {"storage", "limits"}


def test_what_could_not_be_read_is_left_out() -> None:
    facts = Facts(
        programs=SOUND.programs,
        engine=ENGINE,
        disk=None,
        memory=None,
        clock=ClockFacts(),
        dns=None,
        catalog=None,
        store=None,
        ports=None,
    )
    assert doctor.worst(doctor.judge(facts)) == State.OK


def test_programs_of_this_environment_are_found() -> None:
    facts = doctor_facts.program_facts()
    assert re.fullmatch(r"2\.19\.\d+", facts.ansible_core or "")


def test_room_is_told_for_a_folder_that_is_not_there_yet(tmp_path) -> None:
    facts = doctor_facts.disk_facts(str(tmp_path / "later" / "deep"))
    assert facts is not None
    assert 0 < facts.free_bytes <= facts.total_bytes


def test_memory_is_read_from_the_kernels_table(tmp_path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 2048 kB\nMemAvailable:\t1024 kB\nHugePages_Total: 0\n")
    assert doctor_facts.memory_facts(meminfo) == MemoryFacts(2 * 2**20, 2**20)
    assert doctor_facts.memory_facts(tmp_path / "none") is None


def test_containers_inherit_what_systemd_resolved_asks(tmp_path) -> None:
    resolv = tmp_path / "resolv.conf"
    upstream = tmp_path / "upstream.conf"
    resolv.write_text("# local\nnameserver 127.0.0.53\noptions edns0\n")
    upstream.write_text("nameserver 192.0.2.53\nnameserver 2001:db8::1\n")
    assert doctor_facts.dns_facts((), resolv, upstream).nameservers == ("192.0.2.53", "2001:db8::1")
    assert doctor_facts.dns_facts((), resolv, tmp_path / "none").nameservers == ("127.0.0.53",)


def container(name: str, role: str, state: str = "running") -> dict[str, object]:
    labels = {"epic.tenant": "t", "epic.cluster": name, "epic.role": role, "epic.index": "1"}
    return {"Id": f"{name}-{role}", "State": state, "Labels": labels, "ImageID": "sha256:1"}


def test_one_node_of_each_cluster_is_asked_for_another(monkeypatch) -> None:
    found = [
        container("lab", "worker"),
        container("lab", "master"),
        container("sound", "master"),
        container("sound", "worker"),
        container("single", "master"),
        container("half", "master"),
        container("half", "worker", "exited"),
    ]
    asked = []

    def answer(_host: object, node: str, command: list[str]) -> tuple[int, str]:
        asked.append((node, command[-1]))
        return (2 if node.startswith("lab") else 0), ""

    monkeypatch.setattr("epic_runner.docker_api.containers", lambda *_: found)
    monkeypatch.setattr("epic_runner.docker_exec.output_of", answer)
    lost = doctor_facts.lost_nodes(local_host())
    assert lost == ("lab-master-1: lab-worker-1",)
    assert asked == [("lab-master", "lab-worker-1"), ("sound-master", "sound-worker-1")]


def test_images_and_nodes_are_held_against_the_files_of_now(monkeypatch) -> None:
    plans = make_plans(load_catalog(content_root() / "images"))
    references = [plan.app.reference for plan in plans.values()]
    built = {
        references[0]: {"Id": "sha256:0", "Labels": {LABEL_LOCK: plans["base"].lock}},
        references[1]: {"Id": "sha256:2", "Labels": {LABEL_LOCK: "of other files"}},
    }
    monkeypatch.setattr("epic_runner.docker_api.images", lambda _: built)
    monkeypatch.setattr("epic_runner.docker_api.containers", lambda *_: [container("lab", "w")])
    facts = doctor_facts.catalog_facts(local_host(), load_catalog(content_root() / "images"))
    assert facts is not None
    states = {image.reference: (image.present, image.fresh) for image in facts.images}
    assert states == {
        references[0]: (True, True),
        references[1]: (True, False),
        **dict.fromkeys(references[2:], (False, False)),
    }
    assert facts.outdated_nodes == ("lab w-1",)


@pytest.mark.parametrize(
    ("image", "spark_version", "said"),
    [
        # The image of before a new revision is there still, under its own tag.
        ("epic/spark:{version}-r0", "{version}", doctor_facts.REVISED),
        ("epic/jupyter:0.1-r1", "{version}", doctor_facts.REVISED),
        # A launch takes no other version of the app for the one that it has.
        ("epic/spark:0.1-r1", "0.1", doctor_facts.OUTDATED),
        ("{reference}", "{version}", ""),
        # A tag that has gone on to another build leaves the bare id behind.
        ("sha256:1", "{version}", doctor_facts.OUTDATED),
        ("site/own:1", "{version}", ""),
    ],
)
def test_a_node_is_held_against_the_catalogues_image(
    image: str, spark_version: str, said: str
) -> None:
    catalog = load_catalog(content_root() / "images")
    spark = catalog.apps["spark"]
    names = {"version": spark.version, "reference": spark.reference}
    node = container("lab", "worker")
    spec = {"app": "spark", "app_version": spark_version.format(**names)}
    node |= {"Image": image.format(**names)}
    node["Labels"] = {**dict(node["Labels"]), "epic.cluster.spec": json.dumps(spec)}  # type: ignore[call-overload]
    node["ImageID"] = "gone" if image.startswith("sha256:") else "sha256:1"
    assert doctor_facts.age(node, catalog, {"sha256:1"}) == said


def test_the_kernel_tells_of_its_clock() -> None:
    assert doctor_facts.clock_synchronized() in {True, False}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("EPIC_DATABASE_URL", raising=False)
    monkeypatch.setenv("EPIC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_store_that_is_not_there_is_not_made(home) -> None:
    facts = doctor_facts.store_facts()
    assert (facts.exists, facts.writable, facts.error) == (False, True, None)
    assert not home.exists()


def test_the_stores_revision_is_read_without_migrating(home) -> None:
    home.mkdir()
    path = home / "store.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('0000')")
    connection.close()
    facts = doctor_facts.store_facts()
    assert (facts.revision, facts.head, facts.error) == ("0000", HEAD, None)


def test_a_file_that_is_no_store_is_an_error(home) -> None:
    home.mkdir()
    (home / "store.db").write_text("not a database, but longer than its header of 100 bytes" * 9)
    assert "not a database" in (doctor_facts.store_facts().error or "")


def test_a_store_that_another_program_holds_is_an_error(home, monkeypatch) -> None:
    home.mkdir()
    connection = sqlite3.connect(home / "store.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(doctor_facts, "STORE_WAIT_SECONDS", 0.05)
    assert "locked" in (doctor_facts.store_facts().error or "")
    connection.close()


def test_a_database_servers_password_is_not_told(monkeypatch) -> None:
    monkeypatch.setenv("EPIC_DATABASE_URL", "postgresql://epic:s3cret@127.0.0.1:1/epic")
    facts = doctor_facts.store_facts()
    assert facts.error
    assert "s3cret" not in facts.place + facts.error


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (SOUND, 0),
        (changed("clock", synchronized=False), 0),
        (changed("disk", free_bytes=0), 1),
    ],
)
def test_only_a_failure_makes_the_exit_code_1(monkeypatch, facts: Facts, code: int) -> None:
    monkeypatch.setattr("epic_runner.cli.doctor.gather", lambda: facts)
    result = CliRunner().invoke(cli, ["doctor", "--output", "json"])
    assert result.exit_code == code
    told = json.loads(result.output)
    assert told["state"] == doctor.worst(doctor.judge(facts))
    assert told["checks"] == [item.as_dict() for item in doctor.judge(facts)]


def test_people_see_every_check_and_every_mend(monkeypatch) -> None:
    facts = changed("disk", free_bytes=0)
    monkeypatch.setattr("epic_runner.cli.doctor.gather", lambda: facts)
    output = CliRunner().invoke(cli, ["doctor"]).output
    for item in doctor.judge(facts):
        assert item.seen in output
    assert "disk: Make room" in output
    monkeypatch.setattr("epic_runner.cli.doctor.gather", lambda: SOUND)
    assert "Nothing to mend." in CliRunner().invoke(cli, ["doctor"]).output


def test_the_skew_of_a_clock_is_only_what_the_way_does_not_explain() -> None:
    told = "1970-01-01T00:01:40.5Z"
    assert doctor_facts.skew_seconds(told, 100.0, 101.0) == 0
    assert doctor_facts.skew_seconds(told, 90.0, 98.5) == 2.0
    assert doctor_facts.skew_seconds(told, 103.0, 110.0) == -2.5
    assert doctor_facts.skew_seconds("", 103.0, 110.0) is None


def test_nothing_more_is_asked_of_an_engine_that_does_not_answer(monkeypatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    facts = doctor_facts.gather()
    assert facts.engine.address == "unix:///nowhere/docker.sock"
    assert facts.engine.error == "No such file or directory"
    assert (facts.disk, facts.catalog) == (None, None)
    assert finding(facts, "docker").state == State.FAIL


def test_rules_that_are_not_in_force_are_a_failure_with_a_mend() -> None:
    found = doctor.judge(replace(SOUND, firewall=FirewallFacts(2, "the table inet epic is gone")))
    [finding] = [item for item in found if item.check == "firewall"]
    assert finding.state is State.FAIL
    assert "inet epic is gone" in finding.seen
    assert finding.mend
    sound = doctor.judge(replace(SOUND, firewall=FirewallFacts(2)))
    assert [item.state for item in sound if item.check == "firewall"] == [State.OK]
