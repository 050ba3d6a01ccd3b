"""What is noted of a write: what changed, bounded, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest

from persistence.audit_records import Action, AuditFilter
from persistence.config_records import ConfigContent, TemplateMessage
from resolvers.audit import MAX_CHARACTERS, AuditLog, Shown, Subject, event
from resolvers.audit_fields import audit_of_config, content_fields
from resolvers.errors import ServiceUnavailableError
from resolvers.principal import Origin
from tests.persistence.audit import MemoryAuditLog, audit_event
from tests.persistence.configs import config
from tests.persistence.entries import NOON
from tests.resolvers.scene import ACME

SUBJECT = Subject("config", "cfg_1")
CONTENT = ConfigContent(model="a/b", messages=(TemplateMessage("user", "hello"),), labels={"team": "a"})


def changed(before: dict[str, Any] | None, after: dict[str, Any] | None) -> tuple[Any, Any]:
    made = event(ACME, Action.CONFIG_UPDATE, SUBJECT, before=before, after=after)
    return made.before, made.after


def told(before: ConfigContent, after: ConfigContent) -> tuple[Any, Any]:
    content = content_fields(before), content_fields(after)
    standing = config()
    made = audit_of_config(ACME, Action.CONFIG_UPDATE, "cfg_1", content)(standing, standing)
    return made.before, made.after


def test_who_and_from_where() -> None:
    asking = replace(ACME, key_id="key_7", origin=Origin("203.0.113.7", "request-7"))
    made = event(asking, Action.CONFIG_UPDATE, SUBJECT, before={}, after={})
    assert (made.organisation, made.actor, made.key_id) == ("acme", "key_1", "key_7")
    assert (made.address, made.request_id) == ("203.0.113.7", "request-7")
    assert (made.action, made.subject_kind, made.subject_id) == ("config.update", "config", "cfg_1")
    assert int(made.id.removeprefix("aud_")[:12], 16) == round(made.at.timestamp() * 1000)


def test_only_what_changed_is_noted() -> None:
    assert changed({"a": 1, "b": 2}, {"a": 1, "b": 3}) == ({"b": 2}, {"b": 3})
    assert changed({"a": 1}, {"b": 1}) == ({"a": 1}, {"b": 1})
    assert changed(None, {"a": None}) == (None, {"a": None})
    assert changed({"a": 1}, None) == ({"a": 1}, None)


def test_values_as_json_has_them() -> None:
    values = {
        "time": NOON,
        "money": Decimal("1E-7"),
        "list": ("a", "b"),
        "none": None,
        "half": "a\ud800",
        "count": 2**63,
        "yes": True,
    }
    _, after = changed(None, values)
    assert after == {
        "time": "2026-03-01T12:00:00+00:00",
        "money": "0.0000001",
        "list": ["a", "b"],
        "none": None,
        "half": "a?",
        "count": 2**63,
        "yes": True,
    }
    assert orjson.loads(orjson.dumps(after)) == after


def test_a_long_value_is_cut_and_its_change_is_told_all_the_same() -> None:
    start = "é" * 5000
    before, after = changed({"prompt": f"{start}a"}, {"prompt": f"{start}bc"})
    assert before == {"prompt": f"{'é' * MAX_CHARACTERS}… (5001 characters)"}
    assert after == {"prompt": f"{'é' * MAX_CHARACTERS}… (5002 characters)"}
    _, after = changed(None, {"list": ["é" * 10] * 5000})
    assert after is not None
    assert len(after["list"]) < MAX_CHARACTERS + 30


def test_the_largest_draft_makes_a_small_event() -> None:
    """Nearly all of it is cut: no field goes by without its bound."""
    long = "x" * 100_000
    large = ConfigContent(
        model=long,
        description=long,
        prompt=long,
        messages=(TemplateMessage("user", long),) * 9,
        stop=(long,) * 9,
        response_format={long: long},
        fallbacks=(long,),
        cache={long: long},
        labels={long: long},
        provider_options={long: {"a": long}},
        seed=2**63,
    )
    before, after = told(large, replace(CONTENT, seed=1))
    assert len(orjson.dumps(before)) + len(orjson.dumps(after)) < 30 * MAX_CHARACTERS


def test_of_a_vendor_s_own_options_only_the_vendors_are_told() -> None:
    secret = {"headers": {"x-api-key": "canary"}}
    before, after = told(CONTENT, replace(CONTENT, provider_options={"alpha": secret}))
    assert (before, after) == ({"providerOptions": []}, {"providerOptions": ["alpha"]})
    changed_within = told(
        replace(CONTENT, provider_options={"alpha": secret}), replace(CONTENT, provider_options={"alpha": {}})
    )
    assert changed_within == ({"providerOptions": ["alpha"]}, {"providerOptions": ["alpha"]})
    assert "canary" not in repr(changed_within)


def test_what_is_shown_otherwise_is_compared_as_it_is() -> None:
    assert changed({"a": Shown("x", 1)}, {"a": Shown("x", 1)}) == ({}, {})
    assert changed({"a": Shown("x", 1)}, {"a": Shown("x", 2)}) == ({"a": "x"}, {"a": "x"})


def test_every_field_of_a_draft_is_told() -> None:
    names = set(content_fields(CONTENT))
    camel = {"top_p": "topP", "max_tokens": "maxTokens", "tool_choice": "toolChoice", "timeout_ms": "timeoutMs"}
    camel |= {"response_format": "responseFormat", "reasoning_effort": "reasoningEffort"}
    camel |= {"provider_options": "providerOptions"}
    assert names == {camel.get(name, name) for name in ConfigContent.__dataclass_fields__}


async def test_a_log_that_is_away_is_told() -> None:
    store = MemoryAuditLog()
    store.down = True
    log = AuditLog(store)
    with pytest.raises(ServiceUnavailableError, match="audit log"):
        await log.note(audit_event(at=datetime.now(UTC)))
    with pytest.raises(ServiceUnavailableError, match="audit log"):
        await log.page(ACME, first=5, after=None, where=AuditFilter())
