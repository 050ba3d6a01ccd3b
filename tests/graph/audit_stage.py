"""The stage with all that is written on the embedded stores, the audit log beside it, and one of each write."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graph.engine import Engine
from graph.schema import build_schema
from persistence.migrations.sqlite import migrate
from persistence.sqlite.api_keys import SQLiteApiKeys
from persistence.sqlite.audit import SQLiteAuditLog
from persistence.sqlite.batches import SQLiteBatches
from persistence.sqlite.configs import SQLiteConfigs
from persistence.sqlite.database import open_database
from persistence.sqlite.limits import SQLiteLimits
from persistence.sqlite.prices import SQLitePrices
from persistence.sqlite.provider_keys import SQLiteProviderKeys
from persistence.sqlite.webhook_outbox import SQLiteWebhookOutbox
from persistence.sqlite.webhooks import SQLiteWebhooks
from tests.persistence.batches import ENDED_BATCH, keep_ended
from tests.persistence.entries import entry
from tests.persistence.memory_batches import MemoryObjects
from tests.resolvers.batches_in_memory import batches_in
from tests.resolvers.receivers import HERE, webhooks_in
from tests.resolvers.scene import api_keys_in, configs_in, open_scene, prices_in, provider_keys_in

from .stage import Stage

SECRET = "sk-canary-of-a-provider-7Yh2"
LOG = """
query ($first: Int! = 100, $after: String, $filter: AuditFilter) {
  auditLog(first: $first, after: $after, filter: $filter) {
    nodes { id at actor apiKeyId address requestId action subjectKind subjectId before after }
    edges { cursor }
    pageInfo { hasNextPage endCursor }
  }
}
"""


@asynccontextmanager
async def open_audit_stage(folder: Path) -> AsyncIterator[Stage]:
    migrate(folder / "documents.db")
    async with open_scene() as scene, open_database(folder / "documents.db") as database:
        limits, api_keys = scene.services.limit_rules, api_keys_in(SQLiteApiKeys(database))
        scene.services = replace(
            scene.services,
            configs=configs_in(SQLiteConfigs(database), scene.services.vendors),
            prices=prices_in(SQLitePrices(database)),
            api_keys=api_keys,
            limit_rules=replace(limits, store=SQLiteLimits(database), api_keys=api_keys),
            webhooks=webhooks_in(SQLiteWebhooks(database), SQLiteWebhookOutbox(database), outbound=HERE),
            provider_keys=provider_keys_in(SQLiteProviderKeys(database), scene.alpha),
        )
        batches = SQLiteBatches(database)
        services = scene.services
        made = batches_in(services.configs, services.prices, services.webhooks, batches, MemoryObjects())
        scene.services = replace(services, batches=made)
        await keep_ended(batches)
        scene.store.entries = [entry(completion_id="cmp_1")]
        yield Stage(scene, Engine(build_schema()), SQLiteAuditLog(database))


@dataclass(frozen=True)
class Write:
    """A mutation. `given` may name the ids of what was made before, as "{config}". `told`: what the log must say of
    it, before and after; of what is not listed there it may say anything."""

    field: str
    kind: str
    given: Mapping[str, Any]
    action: str
    subject: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    selection: str = "__typename"
    makes: str | None = None


DRAFT = {"model": "alpha/a-1", "prompt": "Hello {{name}}", "variables": [{"name": "name"}]}
GREET = {"slug": "greet"}
SPAN = {"since": "2026-03-01T00:00:00Z", "until": "2026-03-02T00:00:00Z"}

WRITES = (
    Write(
        "createConfig",
        "CreateConfigInput",
        {"slug": "greet", "draft": DRAFT},
        "config.create",
        "{config}",
        None,
        {"slug": "greet", "revision": 1, "model": "alpha/a-1", "prompt": "Hello {{name}}", "maxTokens": None},
        "id",
        "config",
    ),
    Write(
        "updateConfig",
        "UpdateConfigInput",
        {"by": GREET, "draft": {**DRAFT, "prompt": "Good day {{name}}"}, "expectedRevision": 1},
        "config.update",
        "{config}",
        {"revision": 1, "prompt": "Hello {{name}}"},
        {"revision": 2, "prompt": "Good day {{name}}"},
    ),
    Write(
        "publishConfig",
        "PublishConfigInput",
        {"by": GREET},
        "config.publish",
        "{config}",
        {"revision": 2, "publishedVersion": None},
        {"revision": 3, "publishedVersion": 1},
    ),
    Write(
        "rollbackConfig",
        "RollbackConfigInput",
        {"by": GREET, "version": 1},
        "config.rollback",
        "{config}",
        {"revision": 3},
        {"revision": 4},
    ),
    Write(
        "archiveConfig",
        "ArchiveConfigInput",
        {"by": GREET},
        "config.archive",
        "{config}",
        {"revision": 4, "archivedAt": None},
        {"revision": 5},
    ),
    Write(
        "unarchiveConfig",
        "ArchiveConfigInput",
        {"by": GREET},
        "config.unarchive",
        "{config}",
        {"revision": 5},
        {"revision": 6, "archivedAt": None},
    ),
    Write(
        "createPriceOverride",
        "CreatePriceOverrideInput",
        {"provider": "alpha", "model": "a-1", "input": "2.50", "output": "10", "note": "contract 7"},
        "price.set",
        "{price}",
        None,
        {
            "provider": "alpha",
            "input": "2.50",
            "output": "10",
            "cachedInput": None,
            "until": None,
            "note": "contract 7",
        },
        "id",
        "price",
    ),
    Write(
        "createDiscount",
        "CreateDiscountInput",
        {"percent": "12.5"},
        "price.set",
        "{discount}",
        None,
        {"provider": None, "percent": "12.5"},
        "id",
        "discount",
    ),
    Write("endPrice", "EndPriceInput", {"id": "{price}"}, "price.end", "{price}", {"until": None}, {}),
    Write(
        "createApiKey",
        "CreateApiKeyInput",
        {"name": "A server", "grant": {"roles": ["caller"], "networks": ["10.0.0.0/8"]}},
        "api_key.create",
        "{key}",
        None,
        {"name": "A server", "roles": ["caller"], "scopes": [], "networks": ["10.0.0.0/8"], "revision": 1},
        "apiKey { id } key",
        "key",
    ),
    Write(
        "updateApiKey",
        "UpdateApiKeyInput",
        {"id": "{key}", "name": "Another", "grant": {"roles": ["caller"], "models": ["alpha/*"]}},
        "api_key.update",
        "{key}",
        {"name": "A server", "networks": ["10.0.0.0/8"], "models": None, "revision": 1},
        {"name": "Another", "networks": None, "models": ["alpha/*"], "revision": 2},
    ),
    Write(
        "rotateApiKey",
        "RotateApiKeyInput",
        {"id": "{key}"},
        "api_key.rotate",
        "{key}",
        {"revision": 2},
        {"revision": 3},
        "key",
    ),
    Write(
        "revokeApiKey",
        "RevokeApiKeyInput",
        {"id": "{key}"},
        "api_key.revoke",
        "{key}",
        {"revision": 3, "revokedAt": None},
        {"revision": 4},
    ),
    Write(
        "mintToken",
        "MintTokenInput",
        {"grant": {"scopes": ["completions:write"], "models": ["alpha/a-1"]}},
        "token.mint",
        "key_1",
        None,
        {"scopes": ["completions:write"], "roles": [], "models": ["alpha/a-1"], "configs": None, "networks": None},
        "token",
    ),
    Write(
        "setProviderKey",
        "SetProviderKeyInput",
        {"provider": "alpha", "key": SECRET},
        "provider_key.set",
        "alpha",
        None,
        {"hint": SECRET[-4:], "createdBy": "key_1"},
    ),
    Write(
        "deleteProviderKey",
        "DeleteProviderKeyInput",
        {"provider": "alpha"},
        "provider_key.delete",
        "alpha",
        {"hint": SECRET[-4:], "createdBy": "key_1"},
        None,
    ),
    Write(
        "setLimits",
        "SetLimitsInput",
        {"requestsPerMinute": 60, "usdPerDay": "12.5"},
        "limits.set",
        "organisation",
        None,
        {"requestsPerMinute": 60, "usdPerDay": "12.5", "streams": None},
        "limited",
    ),
    Write(
        "removeLimits",
        "RemoveLimitsInput",
        {},
        "limits.remove",
        "organisation",
        {"requestsPerMinute": 60, "usdPerDay": "12.5"},
        None,
        "limited",
    ),
    Write(
        "createWebhook",
        "CreateWebhookInput",
        {"url": f"http://127.0.0.1:9/{SECRET}", "events": ["BUDGET_THRESHOLD_REACHED"], "description": "ours"},
        "webhook.create",
        "{webhook}",
        None,
        {"url": "http://127.0.0.1:9", "events": ["budget.threshold_reached"], "enabled": True, "revision": 1},
        "secret webhook { id }",
        "webhook",
    ),
    Write(
        "updateWebhook",
        "UpdateWebhookInput",
        {"id": "{webhook}", "url": f"http://127.0.0.1:19/{SECRET}", "description": ""},
        "webhook.update",
        "{webhook}",
        {"url": "http://127.0.0.1:9", "description": "ours", "revision": 1},
        {"url": "http://127.0.0.1:19", "description": None, "revision": 2},
    ),
    Write(
        "rotateWebhookSecret",
        "RotateWebhookSecretInput",
        {"id": "{webhook}"},
        "webhook.rotate",
        "{webhook}",
        {"formerSecretUntil": None, "revision": 2},
        {"revision": 3},
        "secret",
    ),
    Write(
        "testWebhook", "TestWebhookInput", {"id": "{webhook}"}, "webhook.test", "{webhook}", None, {}, "id", "delivery"
    ),
    Write(
        "redeliverWebhook",
        "RedeliverWebhookInput",
        {"deliveryId": "{delivery}"},
        "webhook.redeliver",
        "{webhook}",
        None,
        {},
    ),
    Write(
        "deleteWebhook",
        "DeleteWebhookInput",
        {"id": "{webhook}"},
        "webhook.delete",
        "{webhook}",
        {"url": "http://127.0.0.1:19", "enabled": True},
        None,
    ),
    Write(
        "exportUsage",
        "UsageInput",
        SPAN,
        "usage.export",
        "acme",
        None,
        {"since": "2026-03-01T00:00:00+00:00", "until": "2026-03-02T00:00:00+00:00"},
        "url",
    ),
    Write(
        "uploadBatchFile",
        "UploadBatchFileInput",
        {"seconds": 600},
        "batch.upload",
        "acme",
        None,
        {},
        "file",
    ),
    Write(
        "submitBatch",
        "SubmitBatchInput",
        {"inputs": [{"model": "alpha/a-1", "messages": [{"role": "USER", "content": "hello"}]}]},
        "batch.submit",
        "{batch}",
        None,
        {"state": "running", "items": 1, "priority": 5, "run": 1},
        "batch { id }",
        "batch",
    ),
    Write(
        "cancelBatch",
        "CancelBatchInput",
        {"id": "{batch}"},
        "batch.cancel",
        "{batch}",
        {"state": "running"},
        {"state": "cancelling"},
    ),
    Write(
        "retryBatch",
        "RetryBatchInput",
        {"id": ENDED_BATCH},
        "batch.retry",
        ENDED_BATCH,
        {"state": "completed", "run": 1},
        {"state": "retrying", "run": 2},
    ),
    Write(
        "correctUsage",
        "CorrectUsageInput",
        {"completionId": "cmp_1", "attempt": 1, "note": "invoice 7", "cost": "0.5"},
        "usage.correct",
        "cmp_1",
        {"cost": "0.00304"},
        {"cost": "0.50000", "attempt": 1, "note": "invoice 7"},
    ),
)


def filled(given: Any, made: Mapping[str, str]) -> Any:
    """With the ids of what was made."""
    if isinstance(given, str) and given[1:-1] in made:
        return made[given[1:-1]]
    if isinstance(given, Mapping):
        return {name: filled(each, made) for name, each in given.items()}
    return given


def document(write: Write) -> str:
    return f"mutation ($input: {write.kind}!) {{ {write.field}(input: $input) {{ {write.selection} }} }}"


def made_by(write: Write, answer: Mapping[str, Any], made: dict[str, str]) -> None:
    if write.makes is not None:
        made[write.makes] = (answer.get("apiKey") or answer.get("webhook") or answer.get("batch") or answer)["id"]
