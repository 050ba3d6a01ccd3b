"""Links for tests."""

from __future__ import annotations

from resolvers.principal import Principal
from resolvers.usage import UsageQuery
from resolvers.usage_links import UsageLink


class OpenLinks:
    """Links that anyone can read, and none opens."""

    def link(self, principal: Principal, query: UsageQuery) -> UsageLink:
        return UsageLink(f"/usage.csv?{principal.organisation}", query.until)
