"""Anthropic's Message Batches API, sans-IO.

Sources: https://platform.claude.com/docs/en/build-with-claude/batch-processing (up to 100,000 requests and 256 MB; what
has not ended within 24 hours expires), https://platform.claude.com/docs/en/api/creating-message-batches,
https://platform.claude.com/docs/en/api/listing-message-batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from .batching import BatchCall, BatchLine, BatchResult, BatchStatus, Sent, listed
from .errors import ProviderBadResponseError, ProviderError
from .ports import Codec
from .types import CompletionRequest, Credentials

_PATH = "/v1/messages/batches"
_VERSION = {"anthropic-version": "2023-06-01"}
_STATUS_OF = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "overloaded_error": 529,
}
"""An errored result has the type alone: https://platform.claude.com/docs/en/api/errors tells their statuses."""


class AnthropicBatchCodec:
    """Beside the codec of single calls, whose words the lines are in."""

    most_lines = 100_000
    most_bytes = 240_000_000
    keeps_names = False

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.provider = codec.provider

    def headers(self, credentials: Credentials) -> Mapping[str, str]:
        return self._codec.headers(credentials)

    def line(self, custom_id: str, request: CompletionRequest) -> BatchLine:
        body = dict(self._codec.encode(request, stream=False).body)
        body.pop("stream", None)  # a batch has none
        return BatchLine(custom_id, _PATH, orjson.dumps({"custom_id": custom_id, "params": body}))

    def upload(self, lines: Sequence[BatchLine]) -> None:
        return None

    def create(self, lines: Sequence[BatchLine], uploaded: Any, name: str) -> BatchCall:
        return BatchCall(_PATH, b'{"requests":[' + b",".join(line.content for line in lines) + b"]}", _VERSION)

    def status(self, payload: Any) -> BatchStatus:
        found = payload if isinstance(payload, dict) else {}
        batch_id, state = found.get("id"), found.get("processing_status")
        if not isinstance(batch_id, str) or not isinstance(state, str):
            raise ProviderBadResponseError("a batch without id or status", provider=self.provider, status=200)
        if state != "ended":
            return BatchStatus(batch_id, ended=False)
        return BatchStatus(batch_id, ended=True, results=(BatchCall(f"{_PATH}/{batch_id}/results", None, _VERSION),))

    def look(self, batch_id: str) -> BatchCall:
        return BatchCall(f"{_PATH}/{batch_id}", None, _VERSION)

    def cancel(self, batch_id: str) -> BatchCall:
        return BatchCall(f"{_PATH}/{batch_id}/cancel", b"{}", _VERSION)

    def find(self, after: str | None) -> BatchCall:
        behind = "" if after is None else f"&after_id={after}"
        return BatchCall(f"{_PATH}?limit=1000{behind}", None, _VERSION)

    def found(self, payload: Any, sent: Sent) -> Sequence[BatchStatus]:
        """A batch tells when it was created and how many requests it has, and nothing of what is in it."""
        return [self.status(each) for each in listed(payload, self.provider) if self._may_be(each, sent)]

    def oldest(self, payload: Any, sent: Sent) -> str | None:
        page = listed(payload, self.provider)
        if not page or not payload.get("has_more"):
            return None
        if _time(str(page[-1].get("created_at")), self.provider) < sent.since:
            return None
        return self.status(page[-1]).id

    def result(self, line: Any) -> BatchResult:
        match line:
            case {"custom_id": str(custom_id), "result": {"type": "succeeded", "message": message}}:
                try:
                    return BatchResult(custom_id, answer=self._codec.decode(message))
                except ProviderError as error:
                    return BatchResult(custom_id, error=error)
            case {"custom_id": str(custom_id), "result": {"type": "errored", "error": error}}:
                return BatchResult(custom_id, error=self._error_of(error))
            case {"custom_id": str(custom_id)}:  # canceled, expired
                return BatchResult(custom_id)
        raise ProviderBadResponseError("a result without custom_id", provider=self.provider, status=200)

    def error(self, status: int, payload: Any, retry_after: float | None) -> ProviderError:
        return self._codec.error(status, payload, retry_after)

    def _may_be(self, batch: Mapping[str, Any], sent: Sent) -> bool:
        match batch:
            case {"created_at": str(created_at), "request_counts": {} as counts}:
                numbers = [each for each in counts.values() if isinstance(each, int)]
                return sum(numbers) == sent.lines and sent.since <= _time(created_at, self.provider) <= sent.until
        raise ProviderBadResponseError("a batch without its counts", provider=self.provider, status=200)

    def _error_of(self, payload: Any) -> ProviderError:
        """An error answer within a result."""
        inner = payload.get("error") if isinstance(payload, dict) else None
        kind = inner.get("type") if isinstance(inner, dict) else None
        return self._codec.error(_STATUS_OF.get(str(kind), 500), payload, None)


def _time(text: str, provider: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ProviderBadResponseError("a batch without its time", provider=provider, status=200) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
