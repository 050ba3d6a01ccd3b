"""The secrets of this deployment: given by the environment, or, with ENVIRONMENT=LOCAL, made once in DATA_DIR."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from resolvers.principal import Scope

from .auth import Authenticator, UnusableTokenError, mint
from .sealing import Sealer
from .settings import Environment, Settings, SettingsError, decode_key

DEVELOPER = "developer"
DEVELOPER_ORGANISATION = "local"
DEVELOPER_TOKEN_DAYS = 365
_RENEW_BEFORE_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class DeploymentKeys:
    signing_secret: str = field(repr=False)
    encryption_key: bytes = field(repr=False)

    def sealer(self) -> Sealer:
        return Sealer(self.encryption_key)


def deployment_keys(settings: Settings) -> DeploymentKeys:
    """Raises SettingsError where DATA_DIR can't be written or holds a damaged key."""
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
    try:
        return DeploymentKeys(secret, decode_key(key))
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
    authenticator = Authenticator(keys.signing_secret)
    token = _kept(path, lambda: _mint_developer(keys))
    try:
        authenticator.principal(token, margin_s=_RENEW_BEFORE_S)
    except UnusableTokenError:
        path.unlink()
        token = _kept(path, lambda: _mint_developer(keys))
    return token


def _mint_developer(keys: DeploymentKeys) -> str:
    return mint(
        keys.signing_secret,
        subject=DEVELOPER,
        organisation=DEVELOPER_ORGANISATION,
        scopes=list(Scope),
        lifetime_s=DEVELOPER_TOKEN_DAYS * 24 * 3600,
    )


def _kept(path: Path, make: Callable[[], str]) -> str:
    """The file's text; where there is none, makes it, readable by its owner alone. Two processes agree on one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            new = path.with_name(f"{path.name}.{os.getpid()}")
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(make())
            try:
                os.link(new, path)
            except FileExistsError:
                pass  # another process was first: its text counts
            finally:
                new.unlink()
        return path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"DATA_DIR: {error}") from None
