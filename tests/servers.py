"""Servers that tests need for real: on loopback, with data of their own."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

START_SECONDS = 60


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class PostgreSQL:
    """Debian's PostgreSQL, which refuses to run as root and so does not."""

    USER = "epic"

    def __init__(self, connections: int = 100) -> None:
        self.programs = _postgresql_programs()
        self.port = free_port()
        self.password = secrets.token_hex(8)
        self.folder = Path(tempfile.mkdtemp(prefix="epic-postgresql-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = pwd.getpwnam("nobody")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self._server: subprocess.Popen[bytes] | None = None
        self.data = self.folder / "data"
        password = self.folder / "password"
        password.write_text(self.password)
        password.chmod(0o644)
        self._run(
            "initdb", f"--pgdata={self.data}", f"--username={self.USER}", f"--pwfile={password}",
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip
        self._options = [
            f"-D{self.data}", f"-p{self.port}", f"-k{self.folder}",
            "-clisten_addresses=127.0.0.1", "-cfsync=off", "-cshared_buffers=16MB",
            f"-cmax_connections={connections}",
        ]  # fmt: skip
        self.start()

    def url(self, database: str = "postgres") -> str:
        """Return the address of one of its databases, as people write it."""
        return f"postgresql://{self.USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make a database and return its address."""
        name = f"epic_{secrets.token_hex(4)}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def sql(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run a statement and return its rows."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            done = connection.execute(statement.encode())
            return done.fetchall() if done.description else []

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [self.programs / "postgres", *self._options],
                stdout=log, stderr=log, cwd=self.folder, **self._as,
            )  # fmt: skip
        end = time.monotonic() + START_SECONDS
        ready = [
            "pg_isready", "--quiet", "--host=127.0.0.1", f"--port={self.port}",
            f"--username={self.USER}",
        ]  # fmt: skip
        while self._run(*ready, check=False):
            gone = self._server.poll() is not None or time.monotonic() > end
            assert not gone, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it; SIGINT cuts off whoever is connected, SIGKILL is a crash."""
        assert self._server is not None
        self._server.send_signal(how)
        self._server.wait(START_SECONDS)
        if how is signal.SIGKILL:
            # Its children notice within moments; a new server waits for the last of them.
            time.sleep(0.5)

    def close(self) -> None:
        """End it and remove all of it."""
        if self._server is not None and self._server.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        done = subprocess.run(
            [self.programs / program, *arguments],
            capture_output=True, text=True, check=False, cwd=self.folder, **self._as,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done.returncode


def _postgresql_programs() -> Path:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    on_path = shutil.which("postgres")
    found = [*folders, *([Path(on_path).resolve().parent] if on_path else [])]
    assert found, "PostgreSQL is not installed: scripts/test --prepare installs it"
    return found[-1]


class OpenBao:
    """A Vault: OpenBao with TLS, its KV engine, and the policy that docs/tenants.md names."""

    POLICY = """
    path "secret/data/epic/*" { capabilities = ["create", "read", "update"] }
    path "secret/metadata/epic/*" { capabilities = ["list", "read", "delete"] }
    path "secret/data/epic" { capabilities = ["read"] }
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"https://127.0.0.1:{self.port}"
        (folder / "data").mkdir()
        self.certificate = folder / "vault.crt"
        _certificate(self.certificate, folder / "vault.key")
        (folder / "bao.json").write_text(
            json.dumps(
                {
                    "storage": {"raft": {"path": str(folder / "data"), "node_id": "only"}},
                    "listener": {
                        "tcp": {
                            "address": f"127.0.0.1:{self.port}",
                            "tls_cert_file": str(self.certificate),
                            "tls_key_file": str(folder / "vault.key"),
                        }
                    },
                    "api_addr": self.address,
                    "cluster_addr": f"https://127.0.0.1:{free_port()}",
                }
            )
        )
        self._server: subprocess.Popen[bytes] | None = None
        self.root = ""
        self._key = ""
        self.start()
        made = self.ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self.root, [self._key] = made["root_token"], made["keys"]
        self.unseal()
        self.mount("secret")
        self.ask("PUT", "sys/policies/acl/epic", {"policy": self.POLICY})
        self.token_file = folder / "token"
        self.token_file.write_text(self.token("epic"))
        self.token_file.chmod(0o600)

    def environment(self) -> dict[str, str]:
        """Return the variables with which epic-run uses it."""
        return {
            "EPIC_VAULT_ADDR": self.address,
            "EPIC_VAULT_TOKEN_FILE": str(self.token_file),
            "EPIC_VAULT_CA_FILE": str(self.certificate),
        }

    def app_role(self) -> dict[str, str]:
        """Return the variables with which epic-run logs in by an AppRole instead."""
        with contextlib.suppress(urllib.error.HTTPError):  # it is switched on already
            self.ask("POST", "sys/auth/approle", {"type": "approle"})
        self.ask("POST", "auth/approle/role/epic", {"token_policies": ["epic"]})
        role = self.ask("GET", "auth/approle/role/epic/role-id")["data"]["role_id"]
        secret = self.ask("POST", "auth/approle/role/epic/secret-id", {})["data"]["secret_id"]
        files = {"ROLE_ID": role, "SECRET_ID": secret}
        for name, content in files.items():
            (self.folder / name).write_text(f"{content}\n")
        return {
            "EPIC_VAULT_ADDR": self.address,
            "EPIC_VAULT_CA_FILE": str(self.certificate),
            **{f"EPIC_VAULT_{name}_FILE": str(self.folder / name) for name in files},
        }

    def token(self, policy: str) -> str:
        """Return a new token with one policy."""
        made = self.ask("POST", "auth/token/create", {"policies": [policy]})
        return str(made["auth"]["client_token"])

    def read(self, path: str) -> dict[str, Any] | None:
        """Return a secret of the engine `secret`; None where there is none."""
        try:
            return dict(self.ask("GET", f"secret/data/{path}")["data"]["data"])
        except urllib.error.HTTPError as problem:
            if problem.code != 404:
                raise
            return None

    def write(self, path: str, **secret: str) -> None:
        """Write a secret of the engine `secret`."""
        self.ask("POST", f"secret/data/{path}", {"data": secret})

    def mount(self, path: str) -> None:
        """Make a KV engine of version 2, and wait until it is one."""
        self.ask("POST", f"sys/mounts/{path}", {"type": "kv", "options": {"version": "2"}})
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask("POST", f"{path}/data/-", {"data": {}})
            except urllib.error.HTTPError as problem:
                if problem.code != 400 or time.monotonic() > end:
                    raise
                time.sleep(0.05)
            else:
                return

    def seal(self) -> None:
        """Seal it."""
        self.ask("PUT", "sys/seal", {})

    def unseal(self) -> None:
        """Unseal it, and wait until it is at work."""
        self.ask("PUT", "sys/unseal", {"key": self._key})
        self._until(200)

    def start(self) -> None:
        """Start it, and wait until it answers; it is sealed then, as any Vault."""
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [Path(sys.executable).parent / "bao", "server", f"-config={self.folder}/bao.json"],
                stdout=log, stderr=log,
            )  # fmt: skip
        self._until(200, 501, 503)

    def stop(self) -> None:
        """Stop it."""
        assert self._server is not None
        self._server.terminate()
        self._server.wait(START_SECONDS)

    def close(self) -> None:
        """End it, if it runs."""
        if self._server is not None and self._server.poll() is None:
            self.stop()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask its API with the root token."""
        request = urllib.request.Request(  # noqa: S310 - always https
            f"{self.address}/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Vault-Token": self.root},
            method=method,
        )
        trusted = ssl.create_default_context(cafile=str(self.certificate))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted)
        )
        with opener.open(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def _until(self, *wanted: int) -> None:
        end = time.monotonic() + START_SECONDS
        code = 0
        while code not in wanted:
            assert time.monotonic() < end, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)
            try:
                self.ask("GET", "sys/health")
                code = 200
            except urllib.error.HTTPError as problem:
                code = problem.code
            except OSError:
                code = 0


def _certificate(certificate: Path, key: Path) -> None:
    """Write a certificate that signs itself, for the loopback address."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vault of a test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    key.chmod(0o600)
