"""The schema: every domain's root fields put together."""

from __future__ import annotations

import strawberry
from strawberry.schema.config import StrawberryConfig

from .audit import AuditQueries
from .batches.fields import BatchMutations, BatchQueries, BatchSubscriptions
from .completions.events import EVENT_TYPES
from .completions.fields import CompletionMutations, CompletionQueries, CompletionSubscriptions
from .configs.fields import ConfigMutations, ConfigQueries
from .corrections import CorrectionMutations
from .embeddings import EmbeddingMutations
from .executor import CompiledExecutor
from .keys import KeyMutations, KeyQueries
from .limit_alerts import LimitAlertSubscriptions
from .limits import LimitMutations, LimitQueries
from .models import ModelQueries, ModelSubscriptions
from .prices import PriceMutations, PriceQueries
from .provider_keys import ProviderKeyMutations, ProviderKeyQueries
from .scalars import SCALARS
from .usage import UsageQueries
from .usage_export import UsageExportMutations
from .usage_live import UsageLiveSubscriptions
from .viewer import ViewerQueries
from .webhooks import WebhookMutations, WebhookQueries


@strawberry.type(description="Reads. Root fields are nullable: one that fails does not take its siblings with it.")
class Query(
    CompletionQueries,
    ConfigQueries,
    UsageQueries,
    ModelQueries,
    PriceQueries,
    KeyQueries,
    ProviderKeyQueries,
    AuditQueries,
    LimitQueries,
    WebhookQueries,
    BatchQueries,
    ViewerQueries,
):
    pass


@strawberry.type(description="Writes. Root fields run one after the other.")
class Mutation(
    CompletionMutations,
    EmbeddingMutations,
    ConfigMutations,
    PriceMutations,
    KeyMutations,
    ProviderKeyMutations,
    LimitMutations,
    WebhookMutations,
    BatchMutations,
    UsageExportMutations,
    CorrectionMutations,
):
    pass


@strawberry.type(description="Events, over WebSocket (graphql-transport-ws) or server-sent events.")
class Subscription(
    CompletionSubscriptions,
    ModelSubscriptions,
    UsageLiveSubscriptions,
    LimitAlertSubscriptions,
    BatchSubscriptions,
):
    pass


def build_schema() -> strawberry.Schema:
    return strawberry.Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        types=EVENT_TYPES,
        config=StrawberryConfig(scalar_map=SCALARS),
        execution_context_class=CompiledExecutor,
    )
