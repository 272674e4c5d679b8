"""A cluster whose secrets are in a real Vault (OpenBao), and nowhere else."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import life_support
import pytest
from life_support import Site
from servers import OpenBao
from test_life import ansible, playbook

pytestmark = pytest.mark.docker

BOTH = ["master-1", "worker-1"]
TOKEN = "the-word-that-must-be-seen-nowhere"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, openbao: OpenBao) -> Iterator[Site]:
    with life_support.site(tmp_path_factory.mktemp("vault")) as made:
        made.variables.update(openbao.environment())
        yield made


@pytest.fixture(scope="module")
def template(site: Site) -> str:
    return site.template(services=["jupyter"])


class Watch:
    """Looks at every process's command line and environment, again and again."""

    def __init__(self, *words: str) -> None:
        self._words = [word.encode() for word in words]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen: set[str] = set()
        self.looks = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.looks += 1
            for entry in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    with contextlib.suppress(OSError):
                        text = (entry / name).read_bytes()
                        if any(word in text for word in self._words):
                            self.seen.add(f"{entry / name}: {text!r}")


def test_a_watch_sees_what_is_on_a_command_line() -> None:
    with Watch(TOKEN) as watch:
        subprocess.run(["sleep", "0.5", "0"], check=True, env={"WORD": TOKEN})
    assert watch.seen


def test_a_launch_takes_the_token_from_vault_and_shows_it_nowhere(
    site: Site, template: str, openbao: OpenBao
) -> None:
    openbao.write(f"epic/{site.tenant}/lab", token=TOKEN)
    key = openbao.token_file.read_text()
    with Watch(TOKEN, key) as watch:
        site.run("launch", template)
    assert watch.looks > 3
    assert watch.seen == set()
    site.is_as_wanted(BOTH)
    assert site.inside("master-1", "cat", "/etc/epic/secrets/jupyter-token", user="ada") == TOKEN
    for word in (TOKEN, key):
        kept = [path for path in site.home.rglob("*") if path.is_file()]
        assert any(path.name == "stdout" for path in kept)
        assert [path for path in kept if word.encode() in path.read_bytes()] == []
        for node in site.nodes().values():
            assert word not in json.dumps(node)
            assert word not in site.docker("logs", node["Id"])
        logs = site.inside(
            "master-1", "sh", "-c", "cat /data/log/*/current /etc/epic/manifest.json"
        )
        assert word not in logs
        assert word not in site.run("inventory", "lab").out


def test_the_token_opens_the_notebooks(site: Site) -> None:
    [url] = [item["url"] for item in site.status()["endpoints"] if item["name"] == "jupyter"]
    assert url.endswith(f"?token={TOKEN}")
    contents = url.replace("/lab?", "/api/contents?")
    with urllib.request.urlopen(contents, timeout=60) as answer:  # noqa: S310 - loopback
        assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(contents.replace(TOKEN, "other"), timeout=60)  # noqa: S310 - likewise


def test_plain_ansible_reads_the_same_secrets(site: Site) -> None:
    inventory = site.folder / "lab.inventory.yml"
    inventory.write_text(site.run("inventory", "lab").out)
    output = playbook(site, inventory, "launch")
    assert "changed=0" in output
    assert TOKEN not in output


def test_people_refer_to_secrets_of_their_own(site: Site, openbao: OpenBao) -> None:
    openbao.write(f"epic/{site.tenant}", mirror="mine")
    said = ansible(
        site,
        ["ansible", "-i", "localhost,", "localhost", "-m", "debug", "-a",
         f"msg={{{{ lookup('epic_secret', 'vault:secret/epic/{site.tenant}#mirror') }}}}"],
    )  # fmt: skip
    assert '"msg": "mine"' in said


def test_nothing_is_reserved_while_vault_is_sealed(
    site: Site, template: str, openbao: OpenBao
) -> None:
    openbao.seal()
    try:
        for command in (["launch", template, "--name", "other"], ["expand", "lab"]):
            refused = site.run(*command, code=1)
            assert f"Vault at {openbao.address} is sealed" in refused.err
            assert "unseals it" in refused.err
        assert [item["name"] for item in site.json("list")] == ["lab"]
        status = site.status()
        assert status["health"] == "green"
        assert "token=" not in json.dumps(status["endpoints"])
        assert "is sealed" in site.run("doctor", code=1).out
        site.run("stop", "lab")
    finally:
        openbao.unseal()
    site.run("start", "lab")
    site.is_as_wanted(BOTH)


def test_an_app_role_serves_as_well(site: Site, template: str, openbao: OpenBao) -> None:
    before, variables = site.starts(), site.variables
    site.variables = openbao.app_role()
    site.run("launch", template)
    site.variables = variables
    assert site.starts() == before


def test_a_destroy_takes_the_secret_along_once_vault_lets_it(site: Site, openbao: OpenBao) -> None:
    openbao.seal()
    try:
        refused = site.run("destroy", "lab", "--yes", code=1)
        assert "is sealed" in refused.err
        assert site.labelled("container") == []
    finally:
        openbao.unseal()
    assert openbao.read(f"epic/{site.tenant}/lab") == {"token": TOKEN}
    site.run("destroy", "lab", "--yes")
    site.has_nothing()
    assert openbao.read(f"epic/{site.tenant}/lab") is None
    assert openbao.read(f"epic/{site.tenant}") == {"mirror": "mine"}


def test_a_removal_lists_what_goes_and_takes_it(site: Site, openbao: OpenBao) -> None:
    site.run("launch", site.template("small"))
    refused = site.run("tenant", "remove", site.tenant, "--yes", code=2)
    assert "still has clusters: small" in refused.err
    going = site.json("tenant", "remove", site.tenant, "--plan")
    assert going["clusters"] == ["small"]
    assert sorted(going["nodes"]) == [site.container(node, "small") for node in BOTH]
    assert f"epic.{site.tenant}.storage" in [item["name"] for item in going["volumes"]]
    assert set(going["secrets"]) == {
        f"vault:secret/epic/{site.tenant}", f"vault:secret/epic/{site.tenant}/small",
    }  # fmt: skip
    said = site.run("tenant", "remove", site.tenant, "--with-clusters", code=1)
    assert f"vault:secret/epic/{site.tenant}/small" in said.err  # and nobody there to answer
    assert site.running("small") == BOTH
    held = site.json("tenant", "show", site.tenant, "--volumes")["volumes"]
    assert max(item["bytes"] for item in held) > 0
    assert "which hosts enforce it" in site.run("tenant", "show", site.tenant).out
    site.run("tenant", "remove", site.tenant, "--with-clusters", "--yes")
    for kind in ("container", "network", "volume"):
        assert site.labelled(kind) == []
    assert openbao.read(f"epic/{site.tenant}") is None
    assert openbao.read(f"epic/{site.tenant}/small") is None
    assert site.json("tenant", "list") == []
