"""Links to a report as CSV, which a browser may follow without a token."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from persistence.audit_records import Action

from . import usage
from .audit import AuditLog, Subject, event
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


async def export(links: UsageLinks, audit: AuditLog, principal: Principal, query: UsageQuery) -> UsageLink:
    """Raises BadUserInputError for what no report can answer, as far as that doesn't depend on the ledger, and
    ServiceUnavailableError: no link is handed out that the audit log has not."""
    usage.check(query)
    link = links.link(principal, query)
    asked = {"since": query.since, "until": query.until, "expiresAt": link.expires_at}
    subject = Subject("usage_report", principal.organisation)
    await audit.note(event(principal, Action.USAGE_EXPORT, subject, before=None, after=asked))
    return link
