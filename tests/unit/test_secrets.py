"""Secrets: in files or in a real OpenBao, and what is told when it does not give them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from servers import OpenBao

from epic_runner import doctor, doctor_facts, secrets, vault
from epic_runner.errors import EpicError, InputError, NotFound, SecretsUnavailable


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def bao(openbao: OpenBao, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenBao]:
    """The server with nothing in it, and configured."""
    for name, value in openbao.environment().items():
        monkeypatch.setenv(name, value)
    yield openbao
    monkeypatch.undo()
    with pytest.MonkeyPatch.context() as again:
        for name, value in openbao.environment().items():
            again.setenv(name, value)
        secrets.forget_tenant("work")


def test_without_vault_a_token_is_in_a_file_of_its_owner(home: Path) -> None:
    token = secrets.cluster_token("work", "lab")
    file = home / "secrets" / "work" / "lab.json"
    assert secrets.cluster_secrets("work", "lab") == f"file:{file}"
    assert json.loads(file.read_text()) == {"token": token}
    assert file.stat().st_mode & 0o777 == 0o600
    assert secrets.read_secret(f"file:{file}#token") == token == secrets.find_token("work", "lab")
    assert secrets.tenant_secrets("work") == [f"file:{file}"]
    secrets.forget_tenant("work")
    assert not file.parent.exists()
    assert secrets.find_token("work", "lab") is None


def test_with_vault_a_token_is_there_alone(bao: OpenBao, home: Path) -> None:
    assert secrets.find_token("work", "lab") is None
    token = secrets.cluster_token("work", "lab")
    assert bao.read("epic/work/lab") == {"token": token}
    assert secrets.cluster_token("work", "lab") == token
    assert secrets.cluster_secrets("work", "lab") == "vault:secret/epic/work/lab"
    assert secrets.read_secret("vault:secret/epic/work/lab#token") == token
    assert list(home.rglob("*.json")) == []
    secrets.forget_secrets("work", "lab")
    secrets.forget_secrets("work", "lab")
    assert bao.read("epic/work/lab") is None


def test_a_token_moves_from_its_file_to_vault(
    bao: OpenBao, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.delenv("EPIC_VAULT_ADDR")
        token = secrets.cluster_token("work", "lab")
    assert secrets.cluster_token("work", "lab") == token
    assert bao.read("epic/work/lab") == {"token": token}
    assert list(home.rglob("*.json")) == []


@pytest.mark.parametrize("where", ["files", "vault"])
def test_of_launches_at_once_the_first_ones_token_stands(
    where: str, request: pytest.FixtureRequest
) -> None:
    if where == "vault":
        request.getfixturevalue("bao")
    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda _: secrets.cluster_token("work", "lab"), range(8)))
    assert tokens == {secrets.find_token("work", "lab")}


def test_a_token_that_was_deleted_by_hand_is_made_anew(bao: OpenBao) -> None:
    first = secrets.cluster_token("work", "lab")
    bao.ask("DELETE", "secret/data/epic/work/lab")
    assert secrets.cluster_token("work", "lab") != first


def test_a_tenants_secrets_go_with_it_and_no_others(bao: OpenBao) -> None:
    secrets.cluster_token("work", "lab")
    bao.write("epic/work", keytab="k")
    bao.write("epic/work/folder/deep", word="w")
    bao.write("epic/workshop", word="theirs")
    assert set(secrets.tenant_secrets("work")) == {
        "vault:secret/epic/work", "vault:secret/epic/work/lab",
        "vault:secret/epic/work/folder/deep",
    }  # fmt: skip
    secrets.forget_tenant("work")
    assert secrets.tenant_secrets("work") == []
    assert bao.read("epic/workshop") == {"word": "theirs"}
    secrets.forget_tenant("workshop")


def test_a_reference_means_a_key_of_a_secret(bao: OpenBao) -> None:
    bao.write("epic", keytab="of the site")
    bao.write("epic/work", keytab="of the tenant")
    assert secrets.read_secret("vault:secret/epic#keytab") == "of the site"
    assert secrets.read_secret("vault:secret/epic/work#keytab") == "of the tenant"
    for absent in ("vault:secret/epic/work#other", "vault:secret/epic/none#keytab", "file:/no#k"):
        with pytest.raises(NotFound, match=absent):
            secrets.read_secret(absent)


@pytest.mark.parametrize(
    "text", ["hush", "vault:secret/epic", "file:#key", "env:HOME#a", "vault:#"]
)
def test_what_is_no_reference_is_bad_input(text: str) -> None:
    with pytest.raises(InputError, match="is not a reference"):
        secrets.read_secret(text)


def test_a_reference_to_vault_needs_one() -> None:
    with pytest.raises(InputError, match="none is configured"):
        secrets.read_secret("vault:secret/epic#keytab")


def told() -> EpicError:
    with pytest.raises(EpicError) as refused:
        secrets.cluster_token("work", "lab")
    return refused.value


def finding() -> doctor.Finding:
    facts = doctor_facts.vault_facts()
    assert facts is not None
    return doctor.judge_vault(facts)


def test_a_sealed_vault_is_told(bao: OpenBao) -> None:
    bao.seal()
    try:
        problem = told()
        assert isinstance(problem, SecretsUnavailable)
        assert bao.address in problem.message
        assert "is sealed" in problem.message
        assert "unseals it" in (problem.hint or "")
        assert finding().state is doctor.State.FAIL
        assert "is sealed" in finding().seen
    finally:
        bao.unseal()
    assert finding().state is doctor.State.OK


def test_a_vault_that_does_not_answer_is_told(bao: OpenBao) -> None:
    bao.stop()
    try:
        assert "does not answer: Connection refused" in told().message
        assert "EPIC_VAULT_ADDR" in (told().hint or "")
        assert finding().state is doctor.State.FAIL
    finally:
        bao.start()
        bao.unseal()


def test_a_vault_that_refuses_is_told(
    bao: OpenBao, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = tmp_path / "poor"
    poor.write_text(bao.token("default"))
    monkeypatch.setenv("EPIC_VAULT_TOKEN_FILE", str(poor))
    problem = told()
    assert "refuses to let epic-run read secret/epic/work/lab: permission denied" in problem.message
    assert str(poor) in (problem.hint or "")
    assert poor.read_text() not in problem.message + (problem.hint or "")
    assert "refuses" in finding().seen
    poor.write_text("no token at all")
    assert "permission denied" in told().message
    poor.unlink()
    assert f"{poor}, which is to open Vault, cannot be read: No such file" in told().message


def test_a_certificate_that_is_not_trusted_is_told(
    bao: OpenBao, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EPIC_VAULT_CA_FILE")
    assert f"{bao.address} shows a certificate that is not trusted" in told().message
    assert "EPIC_VAULT_CA_FILE" in (told().hint or "")
    monkeypatch.setenv("EPIC_VAULT_CA_FILE", "/nowhere/ca.pem")
    assert "/nowhere/ca.pem" in told().message


def test_a_mount_that_is_none_is_told(bao: OpenBao, monkeypatch: pytest.MonkeyPatch) -> None:
    root = bao.folder / "root"
    root.write_text(bao.root)
    monkeypatch.setenv("EPIC_VAULT_TOKEN_FILE", str(root))
    monkeypatch.setenv("EPIC_VAULT_MOUNT", "kv/team")
    assert "no handler for route" in told().message
    bao.mount("kv/team")
    try:
        token = secrets.cluster_token("work", "lab")
        assert secrets.read_secret("vault:kv/team/epic/work/lab#token") == token
    finally:
        bao.ask("DELETE", "sys/mounts/kv/team")


def test_an_app_role_logs_in(bao: OpenBao, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EPIC_VAULT_TOKEN_FILE")
    assert "not one way to log in" in told().message
    for name, value in bao.app_role().items():
        monkeypatch.setenv(name, value)
    assert bao.read("epic/work/lab") is None
    token = secrets.cluster_token("work", "lab")
    assert bao.read("epic/work/lab") == {"token": token}
    Path(bao.app_role()["EPIC_VAULT_SECRET_ID_FILE"]).write_text("nonsense")
    assert "refuses to let epic-run log in" in told().message


def test_two_ways_to_log_in_are_one_too_many() -> None:
    named = {"EPIC_VAULT_ADDR": "https://vault", "EPIC_VAULT_TOKEN_FILE": "/t"}
    assert vault.settings(named) == vault.Settings("https://vault", token_file="/t")
    both = {"EPIC_VAULT_ROLE_ID_FILE": "/r", "EPIC_VAULT_SECRET_ID_FILE": "/s"}
    with pytest.raises(InputError, match="not one way to log in"):
        vault.settings(named | both)


def test_a_shells_own_vault_is_not_ours() -> None:
    assert vault.settings({"VAULT_ADDR": "https://vault", "VAULT_TOKEN": "hush"}) is None


def test_files_that_open_vault_and_others_can_read_are_told(
    bao: OpenBao, monkeypatch: pytest.MonkeyPatch
) -> None:
    bao.token_file.chmod(0o644)
    try:
        found = finding()
        assert found.state is doctor.State.WARN
        assert found.mend == f"chmod 600 {bao.token_file}"
    finally:
        bao.token_file.chmod(0o600)
    monkeypatch.delenv("EPIC_VAULT_ADDR")
    assert doctor_facts.vault_facts() is None
