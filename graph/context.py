"""What a GraphQL field finds in `info.context`: built anew for each operation, on a socket too."""

from __future__ import annotations

from dataclasses import dataclass

from strawberry.types import Info

from resolvers.audit import AuditLog
from resolvers.principal import Principal
from resolvers.run import Services


@dataclass(frozen=True, slots=True)
class Context:
    """`principal` is verified and unexpired; `request_id` is the one that the caller sees in `X-Request-Id`."""

    services: Services
    principal: Principal
    request_id: str
    audit: AuditLog


GraphInfo = Info[Context, None]
