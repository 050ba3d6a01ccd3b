"""What the vendors' rows ask for: each one's key and address."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, SecretStr, create_model, field_validator, model_validator

from providers.registry import ROWS, ProviderRow

from ..sealing import Sealer
from ..setting_values import SettingsError, is_plain_address, read_key
from .source import Source


def vendor_fields(rows: Iterable[ProviderRow]) -> dict[str, Any]:
    """The settings that rows ask for: a vendor's key, and its address."""
    fields: dict[str, Any] = {}
    for row in rows:
        if row.key_variable:
            told = f"Key for `{row.name}`, plain or `enc:v1:…`{'; absent where it takes none' if row.keyless else ''}."
            fields[row.key_variable] = (SecretStr | None, Field(default=None, description=told))
        if row.base_url_variable:
            told = (
                f"Turns on `{row.name}` ({row.title}), at this address."
                if row.base_url is None
                else f"Instead of `{row.base_url}`."
            )
            fields[row.base_url_variable] = (str | None, Field(default=None, description=told))
    return fields


if TYPE_CHECKING:
    _VendorFields = Source
else:
    _VendorFields = create_model("_VendorFields", __base__=Source, **vendor_fields(ROWS))


class VendorSettings(_VendorFields):
    """The fields are those of `vendor_fields`."""

    @field_validator("*")
    @classmethod
    def _check_url(cls, value: object, info: Any) -> object:
        if info.field_name.endswith("_BASE_URL") and value is not None and not is_plain_address(str(value)):
            raise ValueError("is not a plain http or https address such as https://api.example.com/v1")
        return value

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        """A vendor's address goes with its key, unless it takes none; one without an own address needs to be told."""
        for row in ROWS:
            pairs = [] if row.keyless else [(row.base_url_variable, row.key_variable)]
            if row.base_url is None:
                pairs.append((row.key_variable, row.base_url_variable))
            for given, needed in pairs:
                if getattr(self, given or "") and not getattr(self, needed or ""):
                    raise ValueError(f"{needed}: is not set, and {given} is: set both or neither")
        return self

    def api_keys(self, variable: str, sealer: Sealer) -> list[tuple[str, int]]:
        """A vendor's keys in the clear, each with its weight, also from a variable that no setting is; none where it is
        not set. Raises SettingsError for what can't be read, and for one that doesn't open."""
        value: SecretStr | None = getattr(self if variable in type(self).model_fields else _named(variable), variable)
        text = "" if value is None else value.get_secret_value().strip()
        keys = [read_key(variable, each, sealer) for each in text.split(",")] if text else []
        if len(keys) == 1 and not keys[0][0]:
            return []
        if not all(key for key, _ in keys):
            raise SettingsError(f"{variable}: a key between two commas is empty")
        if len({key for key, _ in keys}) < len(keys):
            raise SettingsError(f"{variable}: the same key stands there twice")
        return keys


def _named(variable: str) -> Source:
    """The environment's variable of a name that an operator chose."""
    fields: dict[str, Any] = {variable: (SecretStr | None, None)}
    return create_model("_Named", __base__=Source, **fields)()
