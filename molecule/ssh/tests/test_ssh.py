"""An SSH server behind an HTTP upgrade, for members with a certificate."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

KEYS = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
CONTAINER = f"epic.{os.environ['MOLECULE_TENANT']}.lab.box-1"


@pytest.fixture(scope="module")
def ssh(tmp_path_factory):
    """Run a command on the node by ssh; return its exit code, its output and its errors."""
    known = tmp_path_factory.mktemp("ssh") / "known_hosts"
    kind, key, *_ = (KEYS / "host.pub").read_text(encoding="ascii").split()
    known.write_text(f"box {kind} {key}\n", encoding="ascii")

    def run(user, command, *, certificate=True):
        options = {
            "ProxyCommand": f"docker exec -i -u nobody {CONTAINER} upgraded",
            "IdentityFile": KEYS / "key",
            "CertificateFile": KEYS / "key-cert.pub" if certificate else "none",
            "UserKnownHostsFile": known,
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        done = subprocess.run(
            ["ssh", "-F", "none", *words, f"{user}@box", command],
            capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return run


# The first one: connections that were refused end a while later.
def test_an_idle_server_is_inetd_alone(node):
    assert len(node("box-1").process.filter(comm="inetd")) == 1
    assert not node("box-1").process.filter(comm="sshd")


def test_a_member_is_in_as_after_a_login(ssh):
    assert ssh("ada", "id -un; hostname; umask; pwd") == (
        0,
        "ada\nlab-box-1\n0002\n/data/home/ada\n",
        "",
    )
    assert ssh("ada", "exit 7")[0] == 7


def test_a_certificate_is_for_one_account_and_needed(ssh):
    for user, certificate in (("bob", True), ("root", True), ("ada", False)):
        code, out, err = ssh(user, "id", certificate=certificate)
        assert (code, out) == (255, "")
        assert "Permission denied (publickey)" in err


def test_what_asks_for_no_upgrade_is_told_so(node):
    told = node("box-1").check_output(
        "curl -s -o /dev/null -w '%{http_code}' http://localhost:2222/"
    )
    assert told == "426"


def test_the_host_key_is_roots_alone(node, inspect):
    key = node("box-1").file("/etc/epic/ssh/host_key")
    assert (key.user, key.mode) == ("root", 0o400)
    secret = (KEYS / "host").read_text(encoding="ascii").splitlines()[1]
    assert secret not in str(inspect("box-1"))
