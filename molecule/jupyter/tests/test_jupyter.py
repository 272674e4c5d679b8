"""JupyterLab for one member, behind the cluster's token."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

TOKEN = json.loads((Path(__file__).parents[1] / "secrets.json").read_text())["token"]


@pytest.fixture(scope="module")
def ask(inspect):
    """Ask JupyterLab from outside of the node; return the status and the answer."""
    (published,) = inspect("notebook-1")["NetworkSettings"]["Ports"]["8889/tcp"]
    address = f"http://{published['HostIp']}:{published['HostPort']}"

    def answer(path, token=None):
        headers = {"Authorization": f"token {token}"} if token else {}
        request = urllib.request.Request(address + path, headers=headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                return response.status, response.read()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read()

    return answer


def test_it_answers_whoever_has_the_token(ask):
    status, page = ask("/lab", TOKEN)
    assert status == 200
    assert b"JupyterLab" in page


@pytest.mark.parametrize("token", [None, "wrong"])
def test_it_refuses_everybody_else(ask, token):
    assert ask("/api/kernelspecs", token)[0] == 403


def test_it_has_kernels_for_python_and_r(ask):
    _, specs = ask("/api/kernelspecs", TOKEN)
    assert {"python", "R"} == {
        kernel["spec"]["language"] for kernel in json.loads(specs)["kernelspecs"].values()
    }


def test_it_shows_the_home_of_its_owner(node, ask):
    node("notebook-1").check_output("sudo -n -u ada touch /home/ada/seen.py")
    _, files = ask("/api/contents/", TOKEN)
    assert "seen.py" in [file["name"] for file in json.loads(files)["content"]]


def test_it_runs_as_its_owner(node):
    server = node("notebook-1").process.get(comm="jupyter-lab")
    assert server.user == "ada"


def test_notebooks_that_do_nothing_give_their_executors_back(node):
    run = node("notebook-1").file("/etc/epic/services/jupyter/run").content_string
    assert "spark.dynamicAllocation.enabled=true" in run
    assert "spark.dynamicAllocation.executorIdleTimeout=45s" in run


def test_the_token_is_seen_by_the_owner_alone(node, inspect):
    secret = node("notebook-1").file("/etc/epic/secrets/jupyter-token")
    assert (secret.content_string, secret.user, secret.mode) == (TOKEN, "ada", 0o400)
    assert TOKEN not in json.dumps(inspect("notebook-1"))
    assert TOKEN not in node("notebook-1").check_output("ps -eww -o args")
    assert TOKEN not in node("notebook-1").check_output("cat /data/log/jupyter/current")


def test_a_node_without_the_service_gets_nothing_of_it(node):
    plain = node("plain-1")
    assert not plain.file("/etc/epic/services").exists
    assert not plain.file("/etc/epic/secrets").exists
