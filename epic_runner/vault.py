"""Secrets in HashiCorp Vault or OpenBao (KV version 2): the only module that knows hvac.

`EPIC_VAULT_ADDR` switches it on. A shell's `VAULT_ADDR` does not: what people use Vault for beside
epic-runner must not move the secrets of clusters. The environment holds an address and names of
files; what opens Vault is in these files alone, so that no process list, inventory or artifact has
it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epic_runner.errors import InputError, SecretsUnavailable

if TYPE_CHECKING:
    # A third of a second to import, which most commands have no use for.
    import hvac

TIMEOUT_SECONDS = 5
DOCUMENTED = "docs/tenants.md, Secrets"


@dataclass(frozen=True)
class Settings:
    """Where Vault is, how epic-run logs in, and where its secrets are.

    Attributes:
        address: Such as `https://vault.example.com:8200`.
        mount: Where the KV engine of version 2 is mounted.
        prefix: The folder in it that is epic-runner's.
        token_file: The file that holds a token; empty where an AppRole logs in.
        role_id_file: The file that holds an AppRole's role id.
        secret_id_file: The file that holds its secret id.
        ca_file: The certificates that Vault's one is checked by; empty for the usual ones.
    """

    address: str
    mount: str = "secret"
    prefix: str = "epic"
    token_file: str = ""
    role_id_file: str = ""
    secret_id_file: str = ""
    ca_file: str = ""

    @property
    def credential_files(self) -> list[str]:
        """The files that log in."""
        named = [self.token_file, self.role_id_file, self.secret_id_file]
        return [name for name in named if name]


def settings(environment: Mapping[str, str] | None = None) -> Settings | None:
    """Return the settings from `EPIC_VAULT_*` variables; None where Vault is not used.

    Raises:
        InputError: They don't say how to log in.
    """
    environment = os.environ if environment is None else environment
    named = {
        name.removeprefix("EPIC_VAULT_").lower(): value
        for name, value in environment.items()
        if name.startswith("EPIC_VAULT_") and value
    }
    if "addr" not in named:
        return None
    found = Settings(
        address=named["addr"].rstrip("/"),
        mount=named.get("mount", Settings.mount).strip("/"),
        prefix=named.get("prefix", Settings.prefix).strip("/"),
        token_file=named.get("token_file", ""),
        role_id_file=named.get("role_id_file", ""),
        secret_id_file=named.get("secret_id_file", ""),
        ca_file=named.get("ca_file", ""),
    )
    if bool(found.token_file) == bool(found.role_id_file and found.secret_id_file):
        raise InputError(
            "EPIC_VAULT_ADDR is set, but not one way to log in.",
            "Name EPIC_VAULT_TOKEN_FILE, or EPIC_VAULT_ROLE_ID_FILE and "
            f"EPIC_VAULT_SECRET_ID_FILE ({DOCUMENTED}); without EPIC_VAULT_ADDR secrets are "
            "kept in files.",
        )
    return found


class Vault:
    """The KV engine of a Vault, opened at the first use.

    Paths begin with the engine's mount: `secret/epic/analytics/lab`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._client: hvac.Client | None = None

    def read(self, path: str) -> dict[str, Any] | None:
        """Return the secret at `path`; None where there is none, or none any more.

        Raises:
            SecretsUnavailable: Vault is sealed, does not answer or refuses; so with all methods.
        """
        from hvac.exceptions import InvalidPath

        mount, below = self._split(path)
        with self._telling(f"read {path}"):
            try:
                answer = self._opened().secrets.kv.v2.read_secret_version(
                    below, mount_point=mount, raise_on_deleted_version=True
                )
            except InvalidPath as problem:
                # An absent secret has nothing said about it, an absent engine has.
                if problem.errors:
                    raise
                return None
        return dict(answer["data"]["data"])

    def write_new(self, path: str, secret: Mapping[str, Any]) -> bool:
        """Write a secret where there is none; False where somebody was first."""
        from hvac.exceptions import InvalidRequest

        mount, below = self._split(path)
        kv = self._opened().secrets.kv.v2
        with self._telling(f"write {path}"):
            try:
                kv.create_or_update_secret(below, dict(secret), cas=0, mount_point=mount)
            except InvalidRequest as problem:
                if "check-and-set" not in str(problem):
                    raise
                return False
        return True

    def remove(self, path: str) -> None:
        """Remove a secret with all its versions; nothing happens where there is none."""
        mount, below = self._split(path)
        with self._telling(f"remove {path}"):
            self._opened().secrets.kv.v2.delete_metadata_and_all_versions(below, mount_point=mount)

    def names(self, path: str) -> list[str]:
        """Return the names right below `path`; those of folders end in a slash."""
        from hvac.exceptions import InvalidPath

        mount, below = self._split(path)
        with self._telling(f"list {path}"):
            try:
                answer = self._opened().secrets.kv.v2.list_secrets(below, mount_point=mount)
            except InvalidPath as problem:
                if problem.errors:
                    raise
                return []
        return list(answer["data"]["keys"])

    def _split(self, path: str) -> tuple[str, str]:
        """Return mount and the path in it; a mount of several folders has to be the configured."""
        mount = self.settings.mount
        if path.startswith(f"{mount}/"):
            return mount, path.removeprefix(f"{mount}/")
        mount, _, below = path.partition("/")
        return mount, below

    def _opened(self) -> hvac.Client:
        if self._client is None:
            with self._telling("log in"):
                self._client = self._log_in()
        return self._client

    def _log_in(self) -> hvac.Client:
        import hvac
        import requests

        session = requests.Session()
        # Plays don't get the caller's proxies and certificates from the environment, and have to
        # find the same Vault.
        session.trust_env = False
        if self.settings.ca_file:
            _content(self.settings.ca_file)  # requests has no good word for a missing one
            session.verify = self.settings.ca_file
        token = _content(self.settings.token_file) if self.settings.token_file else ""
        client = hvac.Client(  # type: ignore[no-untyped-call]
            self.settings.address, token=token, session=session, timeout=TIMEOUT_SECONDS
        )
        if not token:
            client.auth.approle.login(
                _content(self.settings.role_id_file), _content(self.settings.secret_id_file)
            )
        return client

    def check(self) -> None:
        """Log in and read, as an operation would.

        Raises:
            SecretsUnavailable: Secrets of clusters cannot be had.
        """
        # The name of no tenant, so that it needs the policy that clusters' secrets need.
        self.read(f"{self.settings.mount}/{self.settings.prefix}/-/-")

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Turn what can go wrong into an error that says what, where and what next."""
        import requests
        from hvac import exceptions

        where = f"Vault at {self.settings.address}"
        again = "then run the same command again."
        try:
            yield
        except exceptions.VaultDown as problem:
            if "sealed" not in str(problem):
                raise SecretsUnavailable(f"{where} is down: {_said(problem)}.", None) from problem
            raise SecretsUnavailable(
                f"{where} is sealed: epic-run cannot {what}.",
                f"Whoever has its keys unseals it (bao operator unseal), {again}",
            ) from problem
        except exceptions.VaultNotInitialized as problem:
            raise SecretsUnavailable(
                f"{where} is not initialized.", f"bao operator init, {again}"
            ) from problem
        except (
            exceptions.Forbidden,
            exceptions.Unauthorized,
            exceptions.InvalidRequest,
        ) as problem:
            files = " and ".join(self.settings.credential_files)
            raise SecretsUnavailable(
                f"{where} refuses to let epic-run {what}: {_said(problem)}.",
                f"Look whether what {files} holds has expired, and whether its policy allows this "
                f"({DOCUMENTED}); {again}",
            ) from problem
        except exceptions.VaultError as problem:
            raise SecretsUnavailable(
                f"{where} cannot {what}: {_said(problem)}.",
                f"epic-run doctor looks at its address, mount and policy; {again}",
            ) from problem
        except requests.exceptions.SSLError as problem:
            raise SecretsUnavailable(
                f"{where} shows a certificate that is not trusted: {_cause(problem)}.",
                f"Name the file of its authority in EPIC_VAULT_CA_FILE, {again}",
            ) from problem
        except (requests.RequestException, OSError) as problem:
            raise SecretsUnavailable(
                f"{where} does not answer: {_cause(problem)}.",
                f"Look at EPIC_VAULT_ADDR, the network and the server, {again}",
            ) from problem


def _content(file: str) -> str:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise SecretsUnavailable(
            f"{file}, which is to open Vault, cannot be read: {reason}.",
            "One of the variables EPIC_VAULT_*_FILE names it.",
        ) from problem


def _said(problem: Exception) -> str:
    """Return what Vault said, without the request."""
    errors = getattr(problem, "errors", None) or [str(problem.args[0] if problem.args else "")]
    # It says as well how many errors it will name, in a line before them.
    said = (" ".join(str(error).rpartition("* ")[2].split()) for error in errors)
    return "; ".join(said) or type(problem).__name__


def _cause(problem: BaseException) -> str:
    """Return what the operating system said, which libraries wrap in words of their own."""
    inner: BaseException | None = problem
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return type(problem).__name__
