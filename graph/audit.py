"""The audit log: who wrote what, when and from where."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self, cast

import strawberry
from strawberry.scalars import JSON

from graph.completions.inputs import aware
from graph.completions.types import PageInfo
from graph.context import GraphInfo
from graph.inputs import planned
from graph.scopes import Guarded
from persistence import audit_records as records
from resolvers import audit
from resolvers.principal import Scope

_ACTIONS = ", ".join(records.Action)
_CHANGED = "an object with the fields that changed. Long values are cut; a secret is never there."


@strawberry.type(
    description="A write, noted together with it, for good. Corrections of usage are noted before they are booked, and "
    "tokens and links before they are handed out."
)
class AuditEvent:
    id: strawberry.ID = strawberry.field(description="Begins with aud_, and sorts by time.")
    at: datetime = strawberry.field(description="When, UTC.")
    actor: str = strawberry.field(description="Who: the subject of the token, or the id of the API key.")
    api_key_id: strawberry.ID | None = strawberry.field(
        description="The API key that was presented, or by which the token was minted; null where there was none."
    )
    address: str | None = strawberry.field(description="Where the call came from; null where that is not known.")
    request_id: str = strawberry.field(description="The call's request id, as the log and X-Request-Id have it.")
    action: str = strawberry.field(description=f"What was done: {_ACTIONS}.")
    subject_kind: str = strawberry.field(
        description="To what: config, price, api_key, provider_key, token, completion or usage_report."
    )
    subject_id: strawberry.ID = strawberry.field(
        description="Its id; of a provider key the provider, of a token its subject, of a report the organisation."
    )
    before: JSON | None = strawberry.field(description=f"What stood before, {_CHANGED} Null where nothing stood.")
    after: JSON | None = strawberry.field(description=f"What stands after, {_CHANGED} Null where nothing stands.")

    @classmethod
    def of(cls, event: records.AuditEvent) -> Self:
        return cls(
            id=strawberry.ID(event.id),
            at=event.at,
            actor=event.actor,
            api_key_id=None if event.key_id is None else strawberry.ID(event.key_id),
            address=event.address,
            request_id=event.request_id,
            action=event.action,
            subject_kind=event.subject_kind,
            subject_id=strawberry.ID(event.subject_id),
            before=cast("Any", event.before),
            after=cast("Any", event.after),
        )


@strawberry.type(description="A write and its place in the list.")
class AuditEventEdge:
    cursor: str = strawberry.field(description="Opaque; give it as `after` to go on behind this one.")
    node: AuditEvent = strawberry.field(description="The write.")


@strawberry.type(description="A page of the audit log, newest first (Relay).")
class AuditEventConnection:
    edges: list[AuditEventEdge] = strawberry.field(description="The page.")
    nodes: list[AuditEvent] = strawberry.field(description="The same without cursors.")
    page_info: PageInfo = strawberry.field(description="Where the page ends.")

    @classmethod
    def of(cls, page: audit.EventPage, after: str | None) -> Self:
        edges = [AuditEventEdge(cursor=event.id, node=AuditEvent.of(event)) for event in page.events]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=PageInfo(
                has_next_page=page.more,
                has_previous_page=after is not None,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
            ),
        )


@planned
@strawberry.input(description="Which writes: all that is given holds at once.")
class AuditFilter:
    action: str | None = strawberry.field(
        default=strawberry.UNSET, description="What was done, such as config.publish."
    )
    subject_id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="To what.")
    actor: str | None = strawberry.field(default=strawberry.UNSET, description="By whom.")
    since: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="From this time on, this moment included."
    )
    until: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="Up to this moment, which is no longer included."
    )

    def where(self) -> records.AuditFilter:
        return records.AuditFilter(
            action=self.action,
            subject_id=self.subject_id,
            actor=self.actor,
            since=aware(self.since, ("filter", "since")),
            until=aware(self.until, ("filter", "until")),
        )


First = Annotated[int, strawberry.argument(description="How many at most, 1 to 100.")]
After = Annotated[str | None, strawberry.argument(description="The cursor behind which to go on.")]
Filter = Annotated[AuditFilter | None, strawberry.argument(description="Which writes.")]


@strawberry.type
class AuditQueries:
    @strawberry.field(
        description="What was written in the organisation, newest first: who, what, when, from where, before and after."
        " Nothing of it is ever changed or deleted.",
        extensions=[Guarded(Scope.AUDIT_READ)],
    )
    async def audit_log(
        self,
        info: GraphInfo,
        first: First = 50,
        after: After = None,
        filter: Filter = None,  # noqa: A002  # the argument's name
    ) -> AuditEventConnection | None:
        context = info.context
        where = records.AuditFilter() if filter is None else filter.where()
        return AuditEventConnection.of(
            await context.audit.page(context.principal, first=first, after=after, where=where), after
        )
