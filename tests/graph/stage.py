"""The product's schema with the use cases behind it, their vendors and ledger in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from graphql import ExecutionResult, OperationType

from graph.context import Context
from graph.engine import Engine
from graph.errors import formatted
from graph.schema import build_schema
from persistence.ports import AuditStore
from resolvers.audit import AuditLog
from resolvers.principal import Origin, Principal, Scope
from tests.persistence.audit import MemoryAuditLog
from tests.resolvers.scene import Scene, open_scene

EVERY_SCOPE = frozenset(scope.value for scope in Scope)
ALL = frozenset(OperationType)
LATER = 4_000_000_000.0  # the year 2096


@dataclass(frozen=True)
class Stage:
    scene: Scene
    engine: Engine
    log: AuditStore = field(default_factory=MemoryAuditLog)

    async def ask(
        self, query: str, variables: dict[str, Any] | None = None, *, scopes: Iterable[str] = EVERY_SCOPE
    ) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """Data and errors, as the caller sees them, of a query, a mutation or a subscription's first event."""
        principal = Principal("key_1", "acme", frozenset(scopes), LATER, origin=Origin("203.0.113.7", "request-1"))
        results = await self.engine.stream(
            query,
            variables=variables,
            operation_name=None,
            context=Context(self.scene.services, principal, "request-1", AuditLog(self.log)),
            allowed=ALL,
        )
        if not isinstance(results, ExecutionResult):
            async with aclosing(results):
                results = await anext(results)
        return results.data, formatted(results.errors or (), "request-1")


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    async with open_scene() as scene:
        yield Stage(scene, Engine(build_schema()))


def refusals(errors: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Code and path of the bad input, error by error."""
    return [(error["extensions"]["code"], error["extensions"].get("path")) for error in errors]
