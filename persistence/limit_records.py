"""The limits that an organisation has set, as they are stored. Times are aware UTC, in whole milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum


class Limited(StrEnum):
    """Whose calls are counted together."""

    ORGANISATION = "organisation"
    API_KEY = "api_key"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class LimitRule:
    """`name`: an API key's id; "provider/model", or "provider/*" for all of a provider's together; "" for the
    organisation. Whatever is None is not limited. Money is USD, by days and months of UTC; `streams` are those at once.
    `alert_at`: at how much of a budget is told of, in per cent, rising; None where nobody has said."""

    organisation: str
    limited: Limited
    name: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    usd_per_day: Decimal | None
    usd_per_month: Decimal | None
    streams: int | None
    alert_at: tuple[int, ...] | None
    updated_at: datetime
    updated_by: str
