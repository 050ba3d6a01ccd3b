"""Who may call, and the secrets of this deployment."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from ..claims import ClaimRules
from ..setting_values import decode_keys, is_safe_address
from .source import Source

MIN_SECRET_BYTES = 32  # HS256 needs a key of at least 256 bits: RFC 7518, 3.2


class IdentitySettings(Source):
    """Tokens and keys."""

    JWT_TOKEN_SECRET: SecretStr | None = Field(
        default=None, description="Signs and checks tokens (HS256); at least 32 bytes. Generated with `LOCAL`."
    )
    JWT_JWKS_URL: str | None = Field(
        default=None,
        description="Takes an identity provider's tokens too (RS256, ES256), by its key set at this address, such as "
        "`https://example.okta.com/oauth2/default/v1/keys`; `JWT_ISSUER` and `JWT_AUDIENCE` go with it.",
    )
    JWT_ISSUER: str | None = Field(default=None, min_length=1, description="What every token's `iss` must be.")
    JWT_AUDIENCE: str | None = Field(default=None, min_length=1, description="What every token's `aud` must hold.")
    JWT_ORGANISATION_CLAIM: str = Field(
        default="org", min_length=1, description="The identity provider's claim with the organisation's name."
    )
    JWT_SCOPE_CLAIM: str = Field(
        default="scope", min_length=1, description="Its claim with the scopes: a text with spaces between, or a list."
    )
    JWT_ROLES_CLAIM: str | None = Field(
        default=None, min_length=1, description="Its claim with a list of roles (`caller`, `viewer`, …), if it has one."
    )
    ENCRYPTION_KEY: SecretStr | None = Field(
        default=None,
        description="32 bytes in base64, for the `enc:v1:…` values, API keys and organisations' provider keys. Former "
        "ones stand behind it, separated by commas, until `ai-middleware rotate-keys` is done. Generated with `LOCAL`.",
    )

    @field_validator("JWT_JWKS_URL")
    @classmethod
    def _check_key_set(cls, value: str | None) -> str | None:
        if value is not None and not is_safe_address(value):
            raise ValueError("is not an https address; http is for this machine alone (localhost, 127.0.0.1)")
        return value

    @field_validator("JWT_TOKEN_SECRET")
    @classmethod
    def _check_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"needs at least {MIN_SECRET_BYTES} bytes; `openssl rand -base64 48` makes one")
        return value

    @field_validator("ENCRYPTION_KEY")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            decode_keys(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _check_provider(self) -> Self:
        """Whose tokens are taken, and for whom, is said together."""
        if self.JWT_JWKS_URL is not None:
            for name in ("JWT_ISSUER", "JWT_AUDIENCE"):
                if getattr(self, name) is None:
                    raise ValueError(
                        f"{name}: is not set, and JWT_JWKS_URL is: whose tokens, and for whom, must be said"
                    )
        return self

    def claim_rules(self) -> ClaimRules:
        return ClaimRules(
            self.JWT_ISSUER,
            self.JWT_AUDIENCE,
            self.JWT_ORGANISATION_CLAIM,
            self.JWT_SCOPE_CLAIM,
            self.JWT_ROLES_CLAIM,
        )
