"""HAProxy of the gateway's image takes the configuration that the role renders."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Callable
from typing import Any

import docker
import jinja2
import pytest
import yaml

from epic_runner.catalog import load_catalog
from epic_runner.gateway import certificates
from epic_runner.resources import content_root

pytestmark = pytest.mark.docker

ROLE = content_root() / "roles" / "gateway"
FOLDER = "/var/lib/gateway"


def rendered(**changed: Any) -> str:
    """Return the configuration as the role's defaults make it."""
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)  # noqa: S701 - no HTML
    values: dict[str, Any] = {"gateway_name": "gw"}
    for part in ("vars", "defaults"):
        found = yaml.safe_load((ROLE / part / "main.yml").read_text(encoding="utf-8"))
        values |= {name: value for name, value in found.items() if "{{" not in str(value)}
    template = (ROLE / "templates" / "haproxy.cfg.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render({**values, **changed}) + "\n"


@pytest.fixture
def checked() -> Callable[[str], tuple[int, str]]:
    """Have HAProxy check a configuration; return its exit code and what it said."""
    authority = certificates.new_authority("gw", ["localhost"])
    server = certificates.new_server(authority, ["localhost"])
    files = {
        "tls.pem": server.certificate + server.key,
        "issuer.pem": certificates.public_key(certificates.new_key()),
        "seal.map": b"login " + base64.b64encode(bytes(32)) + b"\n",
        "routes.map": b"",
        "tokens.map": b"",
    }
    image = load_catalog(content_root() / "images").apps["gateway"].reference

    def check(text: str) -> tuple[int, str]:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for name, data in {**files, "haproxy.cfg": text.encode()}.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.uid, entry.gid, entry.mode = len(data), 901, 901, 0o600
                archive.addfile(entry, io.BytesIO(data))
        container = docker.from_env().containers.create(
            image, entrypoint=["haproxy", "-c", "-f", f"{FOLDER}/haproxy.cfg"],
            network_mode="none", cap_drop=["ALL"],
        )  # fmt: skip
        try:
            container.put_archive(FOLDER, stream.getvalue())
            container.start()
            code = container.wait(timeout=60)["StatusCode"]
            return int(code), container.logs().decode()
        finally:
            container.remove(force=True, v=True)

    return check


def test_haproxy_takes_the_configuration(checked: Callable[[str], tuple[int, str]]) -> None:
    code, said = checked(rendered())
    assert (code, said.strip().splitlines()[-1]) == (0, "Configuration file is valid")
    assert "WARNING" not in said


def test_haproxy_would_say_what_is_wrong(checked: Callable[[str], tuple[int, str]]) -> None:
    code, said = checked(rendered().replace("jwt_verify(", "jwt_believe("))
    assert code == 1
    assert "jwt_believe" in said
