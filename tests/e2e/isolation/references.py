"""What is a reference, of all that a client can name in the schema, and what is none. A field that is new has to be
entered here: the tests name it until it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from .places import Place

TEXTS = "a text that is handed on or kept, and never looked up"
LABEL = "a label of one's own; where labels are looked up, the filter's own entry says so"
DEPLOYMENT = "a name of the deployment's: providers and published models are the same for all organisations"
GRANT = "held against lists of the API's own: scopes, roles, networks, provider/model"
CONVERSATION = "the model's own name of a tool call: it only has to be found in the same conversation"


@dataclass(frozen=True)
class Reference:
    """`to`: the attributes of `Organisation` that can be named here."""

    to: tuple[str, ...]


class Hidden(Reference):
    """Another organisation's is NOT_FOUND, as what does not exist."""


class Sought(Reference):
    """A filter: another organisation's finds what one that does not exist finds."""


class Free(Reference):
    """A name of one's own that is free though another organisation has it. To the other it is not: it is taken, or
    its own."""


class Known(Reference):
    """The same of what its owner may name twice: who owns it gets the same answer."""


REFERENCES: Mapping[str, Reference] = {
    "Query.node.id": Hidden(("completion", "config", "price_rule", "api_key", "batch")),
    "Query.batch.id": Hidden(("batch",)),
    "Subscription.batchProgress.id": Hidden(("batch",)),
    "CancelBatchInput.id": Hidden(("batch",)),
    "RetryBatchInput.id": Hidden(("batch",)),
    "SubmitBatchInput.file": Hidden(("batch_file",)),
    "SubmitBatchInput.webhook": Hidden(("webhook",)),
    "Subscription.resumeCompletion.id": Hidden(("streamed",)),
    "CompletionRef.id": Hidden(("completion",)),
    "CompletionRef.idempotencyKey": Hidden(("idempotency_key",)),
    "ConfigBy.id": Hidden(("config",)),
    "ConfigBy.slug": Hidden(("slug",)),
    "ConfigRef.slug": Hidden(("slug",)),
    "CorrectUsageInput.completionId": Hidden(("completion",)),
    "EndPriceInput.id": Hidden(("price_rule",)),
    "UpdateApiKeyInput.id": Hidden(("api_key",)),
    "RotateApiKeyInput.id": Hidden(("api_key",)),
    "RevokeApiKeyInput.id": Hidden(("api_key",)),
    "DeleteProviderKeyInput.provider": Hidden(("provider",)),
    "SetLimitsInput.apiKey": Hidden(("api_key",)),
    "RemoveLimitsInput.apiKey": Hidden(("api_key",)),
    "RemoveLimitsInput.model": Hidden(("full_model",)),
    "UpdateWebhookInput.id": Hidden(("webhook",)),
    "DeleteWebhookInput.id": Hidden(("webhook",)),
    "RotateWebhookSecretInput.id": Hidden(("webhook",)),
    "TestWebhookInput.id": Hidden(("webhook",)),
    "Query.webhookDeliveries.webhookId": Hidden(("webhook",)),
    "RedeliverWebhookInput.deliveryId": Hidden(("delivery",)),
    "Query.webhookDeliveries.after": Sought(("delivery",)),
    "Query.auditLog.after": Sought(("cursor_of_events",)),
    "AuditFilter.subjectId": Sought(("config",)),
    "AuditFilter.actor": Sought(("subject",)),
    "Query.completions.after": Sought(("cursor_of_completions",)),
    "Query.batches.after": Sought(("batch",)),
    "Query.configs.after": Sought(("cursor_of_configs",)),
    "Query.prices.after": Sought(("cursor_of_prices",)),
    "Query.apiKeys.after": Sought(("cursor_of_keys",)),
    "CompletionFilter.model": Sought(("model",)),
    "CompletionFilter.endUser": Sought(("end_user",)),
    "CompletionFilter.label.name": Sought(("label_name",)),
    "CompletionFilter.label.value": Sought(("label_value",)),
    "ConfigFilter.model": Sought(("full_model",)),
    "ConfigFilter.search": Sought(("slug", "label_value")),
    "ConfigFilter.label.name": Sought(("label_name",)),
    "ConfigFilter.label.value": Sought(("label_value",)),
    "PriceFilter.model": Sought(("model",)),
    "UsageFilter.model": Sought(("model",)),
    "UsageFilter.config": Sought(("slug",)),
    "UsageFilter.principal": Sought(("subject",)),
    "UsageFilter.endUser": Sought(("end_user",)),
    "UsageFilter.labels.name": Sought(("label_name",)),
    "UsageFilter.labels.value": Sought(("label_value",)),
    "UsageDimensionInput.label": Sought(("label_name",)),
    "CompleteInput.idempotencyKey": Free(("idempotency_key",)),
    "EmbedInput.idempotencyKey": Free(("idempotency_key",)),
    "SubmitBatchInput.idempotencyKey": Free(("batch_key",)),
    "CreateConfigInput.slug": Free(("slug",)),
    "SetProviderKeyInput.provider": Known(("provider",)),
    "GrantInput.configs": Known(("slug",)),
}

NO_REFERENCES: Mapping[str, str] = {
    "Config.versions.after": "the number of a version, within a config that was found by then",
    "Batch.items.after": "the number of an item, within a batch that was found by then",
    "Query.models.after": "a place in the price table, which is the same for all organisations",
    "AuditFilter.action": "a name of the API's own",
    "SubmitBatchInput.model": DEPLOYMENT,
    "SubmitBatchInput.inputs.idempotencyKey": "refused: an input of a batch has none",
    **dict.fromkeys(("ModelFilter.provider", "ModelFilter.search", "SetLimitsInput.model"), DEPLOYMENT),
    **dict.fromkeys(("CompletionFilter.provider", "PriceFilter.provider", "UsageFilter.provider"), DEPLOYMENT),
    **dict.fromkeys(("CreateDiscountInput.provider", "CreatePriceOverrideInput.provider"), DEPLOYMENT),
    **dict.fromkeys(("CreateDiscountInput.model", "CreatePriceOverrideInput.model"), DEPLOYMENT),
    **dict.fromkeys(("CompleteInput.model", "TargetInput.model", "EmbedInput.model"), DEPLOYMENT),
    **dict.fromkeys(("ConfigContentInput.model", "ConfigContentInput.fallbacks"), DEPLOYMENT),
    **dict.fromkeys(("GrantInput.scopes", "GrantInput.roles", "GrantInput.networks", "GrantInput.models"), GRANT),
    **dict.fromkeys(("LabelInput.name", "LabelInput.value"), LABEL),
    **dict.fromkeys(("MessageInput.toolCallId", "ToolCallInput.id"), CONVERSATION),
    **dict.fromkeys(("ToolCallInput.name", "ToolChoiceInput.name", "ToolInput.name"), CONVERSATION),
    **dict.fromkeys(("UsageInput.timeZone", "UsageLiveInput.timeZone"), "a time zone of the calendar"),
    **dict.fromkeys(
        (
            *("CompleteInput.endUser", "CompleteInput.stop", "CompleteInput.providerOptions"),
            *("EmbedInput.endUser", "EmbedInput.inputs", "EmbedInput.providerOptions"),
            *("ConfigContentInput.description", "ConfigContentInput.prompt", "ConfigContentInput.stop"),
            *("ConfigContentInput.providerOptions", "ConfigContentInput.responseFormat", "ConfigContentInput.cache"),
            *("ConfigMessageInput.content", "ConfigRef.variables"),
            *("ConfigVariableInput.name", "ConfigVariableInput.description", "ConfigVariableInput.default"),
            *("MessageInput.content", "PartInput.text"),
            *("MediaInput.url", "MediaInput.data", "MediaInput.mediaType", "MediaInput.name"),
            *("FileInput.url", "FileInput.data", "FileInput.mediaType", "FileInput.name"),
            *("ReasoningBlockInput.text", "ReasoningBlockInput.signature"),
            *("ToolCallInput.arguments", "ToolCallInput.signature", "ToolInput.description", "ToolInput.parameters"),
            *("JsonSchemaInput.schema", "JsonSchemaInput.name"),
            *("CorrectUsageInput.note", "CreateDiscountInput.note", "CreatePriceOverrideInput.note"),
            *("CreateWebhookInput.url", "CreateWebhookInput.description"),
            *("UpdateWebhookInput.url", "UpdateWebhookInput.description"),
            *("CreateApiKeyInput.name", "UpdateApiKeyInput.name", "SetProviderKeyInput.key"),
        ),
        TEXTS,
    ),
}

TOLD: Mapping[str, str] = {
    "Node.id": "completion",
    "CompletionRecord.id": "completion",
    "Completion.id": "completion",
    "Embeddings.id": "completion",
    "CancelCompletionPayload.completionId": "completion",
    "CompletionFailure.completionId": "completion",
    "CompletionEvent.completionId": "completion",
    "CompletionStarted.completionId": "completion",
    "TextDelta.completionId": "completion",
    "ReasoningDelta.completionId": "completion",
    "ToolCallDelta.completionId": "completion",
    "ProviderSwitched.completionId": "completion",
    "CompletionFinished.completionId": "completion",
    "CompletionFailed.completionId": "completion",
    "Config.id": "config",
    "PriceRule.id": "price_rule",
    "PriceOverride.id": "price_rule",
    "PriceDiscount.id": "price_rule",
    "OrganisationPrices.rule": "price_rule",
    "ApiKey.id": "api_key",
    "Webhook.id": "webhook",
    "DeletedWebhook.id": "webhook",
    "WebhookDelivery.id": "delivery",
    "Batch.id": "batch",
    "Batch.webhook": "webhook",
    "BatchItem.completionId": "completion",
}
"""Every id that an answer has, with what it names: that has to be asked for in one place at least."""

TOLD_TO_ALL: Mapping[str, str] = {
    "Model.id": "a place in the price table, which is the same for all organisations",
    "ToolCall.id": CONVERSATION,
    "ToolCallDelta.id": CONVERSATION,
    "WebhookDelivery.eventId": "of an event that receivers are told of; nothing takes it",
    "BatchItem.customId": TEXTS,
    "AuditEvent.id": "a cursor of the log alone: see Query.auditLog.after",
    "AuditEvent.requestId": "of a request that has been answered; nothing takes it",
    "AuditEvent.apiKeyId": "of whoever wrote, which the log's own reader may know",
    "AuditEvent.subjectId": "of whatever was written: see AuditFilter.subjectId",
}

EVERYBODYS_LISTS = frozenset({"models", "providers", "viewer"})
"""What they tell is the deployment's, or the token's."""

_NOW = datetime.now(UTC)
_ECHO = {"model": "scripted/echo", "messages": [{"role": "USER", "content": "hello"}]}

DEFAULTS: Mapping[str, Any] = {
    "CompleteInput": _ECHO,
    "EmbedInput.model": "openai/text-embedding-3-small",
    "EmbedInput.inputs": ["hello"],
    "ConfigContentInput": _ECHO,
    "UpdateConfigInput.expectedRevision": 2,
    "RollbackConfigInput.version": 1,
    "Query.configDiff.from": 1,
    "GrantInput": {"roles": ["caller"]},
    "CreateApiKeyInput.name": "a server",
    "UpdateApiKeyInput": {"name": "renamed"},
    "SetProviderKeyInput.key": "sk-of-the-tests-0123456789",
    "SetLimitsInput": {"requestsPerMinute": 100_000},
    "CorrectUsageInput": {"attempt": 1, "note": "an invoice", "outputTokens": 5},
    "UsageInput": {
        "since": (_NOW - timedelta(days=1)).isoformat(),
        "until": (_NOW + timedelta(days=1)).isoformat(),
    },
    "UsageLiveInput": {"last": 2, "bucket": "DAY"},
    "LabelInput.name": "team",
    "LabelInput.value": "x",
}
"""What goes with a reference: by the input type, all that is to be set of it; by a required field, its value."""


def reference_at(place: Place) -> Reference | None:
    """None where it is declared to be none. Raises KeyError for what is declared to be neither."""
    for name in place.names:
        if name in REFERENCES:
            return REFERENCES[name]
        if name in NO_REFERENCES:
            return None
    raise KeyError(str(place))
