"""What of each record the audit log has: lists of what may be there, so that what a record gets later is not."""

from __future__ import annotations

from persistence.audit_records import Action, AuditEvent
from persistence.batch_records import Batch
from persistence.config_records import Config, ConfigContent
from persistence.key_records import ApiKey, Grant
from persistence.limit_records import LimitRule
from persistence.ports import Audit
from persistence.price_records import Override, PriceRule
from persistence.provider_key_records import StoredProviderKey
from persistence.webhook_records import Webhook

from .audit import Fields, Shown, Subject, audited, event
from .principal import Principal
from .webhook_checks import origin_of

API_KEY, CONFIG, LIMITS, PRICE, PROVIDER_KEY = "api_key", "config", "limits", "price", "provider_key"
WEBHOOK = "webhook"
BATCH, BATCH_FILE = "batch", "batch_file"


def audit_of_key(principal: Principal, action: Action, key_id: str) -> Audit[ApiKey]:
    """Neither the key nor its digest: `hint` is its beginning, which the API shows."""
    return audited(principal, action, Subject(API_KEY, key_id), _key_fields)


def audit_of_provider_key(principal: Principal, action: Action, provider: str) -> Audit[StoredProviderKey]:
    """Neither the key nor what it is sealed in: `hint` is its end, which the API shows."""
    return audited(principal, action, Subject(PROVIDER_KEY, provider), _provider_key_fields)


def audit_of_limits(principal: Principal, action: Action, subject: str) -> Audit[LimitRule]:
    return audited(principal, action, Subject(LIMITS, subject), _limit_fields)


def audit_of_batch(principal: Principal, action: Action, batch_id: str) -> Audit[Batch]:
    """Nothing of its items but how many there are."""
    return audited(principal, action, Subject(BATCH, batch_id), _batch_fields)


def audit_of_price(principal: Principal, action: Action, rule_id: str) -> Audit[PriceRule]:
    return audited(principal, action, Subject(PRICE, rule_id), _price_fields)


def audit_of_webhook(principal: Principal, action: Action, webhook_id: str) -> Audit[Webhook]:
    """Neither its secrets nor what they are sealed in; of its address the host alone, for the rest may hold a token."""
    return audited(principal, action, Subject(WEBHOOK, webhook_id), _webhook_fields)


def audit_of_config(
    principal: Principal, action: Action, config_id: str, content: tuple[Fields, Fields] = ({}, {})
) -> Audit[Config]:
    """`content`: the draft's fields before and after, where the write changes it; so they are read off the loop, and
    not by the store."""

    def audit(before: Config | None, after: Config | None) -> AuditEvent:
        return event(
            principal,
            action,
            Subject(CONFIG, config_id),
            before=None if before is None else {**_config_fields(before), **content[0]},
            after=None if after is None else {**_config_fields(after), **content[1]},
        )

    return audit


def content_fields(content: ConfigContent) -> Fields:
    """Of a vendor's own options the vendors' names alone: what else is there is not ours to know."""
    return {
        "model": content.model,
        "description": content.description,
        "prompt": content.prompt,
        "messages": content.messages,
        "variables": content.variables,
        "temperature": content.temperature,
        "topP": content.top_p,
        "maxTokens": content.max_tokens,
        "stop": content.stop,
        "seed": content.seed,
        "tools": content.tools,
        "toolChoice": content.tool_choice,
        "responseFormat": content.response_format,
        "reasoningEffort": content.reasoning_effort,
        "fallbacks": content.fallbacks,
        "timeoutMs": content.timeout_ms,
        "cache": content.cache,
        "labels": content.labels,
        "providerOptions": Shown(sorted(content.provider_options), content.provider_options),
    }


def grant_fields(grant: Grant) -> Fields:
    return {
        "scopes": grant.scopes,
        "roles": grant.roles,
        "models": grant.models,
        "configs": grant.configs,
        "networks": grant.networks,
    }


def _config_fields(config: Config) -> Fields:
    return {
        "slug": config.slug,
        "revision": config.revision,
        "publishedVersion": config.published,
        "archivedAt": config.archived_at,
    }


def _key_fields(key: ApiKey) -> Fields:
    return {
        "name": key.name,
        "hint": key.hint,
        "revision": key.revision,
        "expiresAt": key.expires_at,
        "revokedAt": key.revoked_at,
        **grant_fields(key.grant),
    }


def _provider_key_fields(key: StoredProviderKey) -> Fields:
    return {"hint": key.hint, "createdAt": key.created_at, "createdBy": key.created_by}


def _limit_fields(rule: LimitRule) -> Fields:
    return {
        "requestsPerMinute": rule.requests_per_minute,
        "tokensPerMinute": rule.tokens_per_minute,
        "usdPerDay": rule.usd_per_day,
        "usdPerMonth": rule.usd_per_month,
        "streams": rule.streams,
        "alertAt": rule.alert_at,
    }


def _webhook_fields(webhook: Webhook) -> Fields:
    return {
        "url": Shown(origin_of(webhook.url), webhook.url),
        "events": webhook.events,
        "description": webhook.description,
        "enabled": webhook.enabled,
        "disabledReason": webhook.disabled_reason,
        "formerSecretUntil": webhook.former_until,
        "revision": webhook.revision,
    }


def _batch_fields(batch: Batch) -> Fields:
    return {
        "state": batch.state.value,
        "mode": batch.mode.value,
        "priority": batch.priority,
        "concurrency": batch.concurrency,
        "deadline": batch.deadline,
        "webhook": batch.webhook,
        "labels": dict(batch.labels),
        "items": batch.counts.total,
        "run": batch.run,
    }


def _price_fields(rule: PriceRule) -> Fields:
    return {
        "provider": rule.provider,
        "model": rule.model,
        **_terms(rule),
        "since": rule.since,
        "until": rule.until,
        "note": rule.note,
    }


def _terms(rule: PriceRule) -> Fields:
    terms = rule.terms
    if isinstance(terms, Override):
        return {
            "input": terms.input,
            "output": terms.output,
            "cachedInput": terms.cached_input,
            "cacheWrite": terms.cache_write,
            "reasoning": terms.reasoning,
        }
    return {"percent": terms.percent}
