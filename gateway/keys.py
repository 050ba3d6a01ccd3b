"""The secrets of this deployment: given by the environment, or, with ENVIRONMENT=LOCAL, made once in DATA_DIR."""

from __future__ import annotations

import base64
import os
import secrets
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from resolvers.principal import Scope

from .auth import Authenticator, mint
from .claims import ClaimRules, UnusableTokenError
from .sealing import Sealer
from .setting_values import decode_keys
from .settings import MIN_SECRET_BYTES, Environment, Settings, SettingsError

DEVELOPER = "developer"
DEVELOPER_ORGANISATION = "local"
DEVELOPER_TOKEN_DAYS = 365
_RENEW_BEFORE_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class DeploymentKeys:
    signing_secret: str = field(repr=False)
    encryption_key: bytes = field(repr=False)
    former_keys: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def masters(self) -> Sequence[bytes]:
        """All that may have sealed something, the present one first."""
        return (self.encryption_key, *self.former_keys)

    def sealer(self) -> Sealer:
        return Sealer(*self.masters)


def deployment_keys(settings: Settings) -> DeploymentKeys:
    """Raises SettingsError where DATA_DIR can't be written, or holds a secret that is damaged or open to others."""
    signing, sealing = settings.JWT_TOKEN_SECRET, settings.ENCRYPTION_KEY
    secret = (
        signing.get_secret_value()
        if signing
        else _kept(settings.DATA_DIR / "signing-secret", lambda: secrets.token_urlsafe(48))
    )
    key = (
        sealing.get_secret_value()
        if sealing
        else _kept(settings.DATA_DIR / "encryption-key", lambda: base64.b64encode(secrets.token_bytes(32)).decode())
    )
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise SettingsError(f"DATA_DIR: {settings.DATA_DIR / 'signing-secret'} is damaged")
    try:
        present, *former = decode_keys(key)
        return DeploymentKeys(secret, present, tuple(former))
    except ValueError as error:
        raise SettingsError(f"DATA_DIR: {settings.DATA_DIR / 'encryption-key'} {error}") from None


def developer_token(settings: Settings, keys: DeploymentKeys) -> str:
    """The ready token of a LOCAL deployment, with every scope; made anew where the kept one no longer serves.

    Raises SettingsError in PRODUCTION.
    """
    if settings.ENVIRONMENT is Environment.PRODUCTION:
        raise SettingsError(
            "ENVIRONMENT: PRODUCTION has no developer token; `ai-middleware token --subject …` mints one"
        )
    path = settings.DATA_DIR / "token"
    rules = settings.claim_rules()
    authenticator = Authenticator(keys.signing_secret, rules=rules)
    token = _kept(path, lambda: _mint_developer(keys, rules))
    try:
        if authenticator.principal(token, margin_s=_RENEW_BEFORE_S).scopes >= set(Scope):
            return token
    except UnusableTokenError:
        pass
    return _renewed(path, _mint_developer(keys, rules))


def _mint_developer(keys: DeploymentKeys, rules: ClaimRules) -> str:
    return mint(
        keys.signing_secret,
        subject=DEVELOPER,
        organisation=DEVELOPER_ORGANISATION,
        scopes=list(Scope),
        lifetime_s=DEVELOPER_TOKEN_DAYS * 24 * 3600,
        rules=rules,
    )


def _kept(path: Path, make: Callable[[], str]) -> str:
    """The file's text; where there is none, makes it, readable by its owner alone. Two processes agree on one.

    One that is open to others is refused, as ssh does: who may have read it is for the operator to judge.
    """
    with _disk_errors():
        if not path.exists():
            with _written(path, make()) as new, suppress(FileExistsError):  # another process was first: its text counts
                path.hardlink_to(new)
        try:
            with path.open(encoding="ascii") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise SettingsError(
                        f"DATA_DIR: {path} is open to other users: `chmod 600 {shlex.quote(str(path))}`"
                    )
                return file.read().strip()
        except UnicodeDecodeError:
            raise SettingsError(f"DATA_DIR: {path} is damaged") from None


def _renewed(path: Path, text: str) -> str:
    with _disk_errors(), _written(path, text) as new:
        new.replace(path)
    return text


@contextmanager
def _written(path: Path, text: str) -> Iterator[Path]:
    """A file beside `path`, whole and on the disk before it takes that name; gone afterwards unless it was moved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")  # for its owner alone: mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SettingsError(f"DATA_DIR: {error}") from None
