"""Links to a report as CSV, which a browser may follow without a token."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from . import usage
from .principal import Principal
from .usage import UsageQuery


@dataclass(frozen=True, slots=True)
class UsageLink:
    """`url` is a secret until it expires: relative to the API's address (RFC 3986, 4.2), beginning with a slash."""

    url: str = field(repr=False)
    expires_at: datetime


class UsageLinks(Protocol):
    """Makes links that open for a while, to one organisation's report alone."""

    def link(self, principal: Principal, query: UsageQuery) -> UsageLink:
        """Raises BadUserInputError, its path from ("input", …), for a query that fits in no link."""
        ...


def export(links: UsageLinks, principal: Principal, query: UsageQuery) -> UsageLink:
    """Raises BadUserInputError for what no report can answer, as far as that doesn't depend on the ledger."""
    usage.check(query)
    return links.link(principal, query)
