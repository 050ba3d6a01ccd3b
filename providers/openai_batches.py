"""OpenAI's Batch API, sans-IO: a file of requests, a batch of it, files of results.

Sources: https://platform.openai.com/docs/guides/batch (a file is for one model and one endpoint, up to 50,000 requests
and 200 MB), https://platform.openai.com/docs/api-reference/batch, https://platform.openai.com/docs/api-reference/files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import orjson

from .batching import BatchCall, BatchLine, BatchResult, BatchStatus, Sent, listed
from .errors import ProviderBadResponseError, ProviderError
from .ports import Codec
from .types import CompletionRequest, Credentials

_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_NAME = "ai_middleware"


class OpenAIBatchCodec:
    """Beside the codec of single calls, whose words the lines are in."""

    most_lines = 50_000
    most_bytes = 190_000_000
    keeps_names = True

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.provider = codec.provider

    def headers(self, credentials: Credentials) -> Mapping[str, str]:
        return self._codec.headers(credentials)

    def line(self, custom_id: str, request: CompletionRequest) -> BatchLine:
        call = self._codec.encode(request, stream=False)
        url = f"/v1{call.path}"
        content = {"custom_id": custom_id, "method": "POST", "url": url, "body": call.body}
        return BatchLine(custom_id, url, orjson.dumps(content))

    def upload(self, lines: Sequence[BatchLine]) -> BatchCall:
        """A form (RFC 7578)."""
        content = b"\n".join(line.content for line in lines)
        boundary = uuid4().hex
        start = f"--{boundary}\r\ncontent-disposition: form-data; name="
        body = (
            f'{start}"purpose"\r\n\r\nbatch\r\n{start}"file"; filename="batch.jsonl"\r\n'
            "content-type: application/jsonl\r\n\r\n"
        ).encode()
        form = body + content + f"\r\n--{boundary}--\r\n".encode()
        return BatchCall("/files", form, {"content-type": f"multipart/form-data; boundary={boundary}"})

    def create(self, lines: Sequence[BatchLine], uploaded: Any, name: str) -> BatchCall:
        body = {
            "input_file_id": _text(uploaded, "id", self.provider),
            "endpoint": lines[0].kind,
            "completion_window": "24h",
            "metadata": {_NAME: name},
        }
        return BatchCall("/batches", orjson.dumps(body))

    def status(self, payload: Any) -> BatchStatus:
        batch_id, state = (_text(payload, name, self.provider) for name in ("id", "status"))
        files = (payload.get(name) for name in ("output_file_id", "error_file_id"))
        results = tuple(BatchCall(f"/files/{file}/content") for file in files if isinstance(file, str))
        failure = _failure(payload) if state == "failed" else None
        return BatchStatus(batch_id, state in _ENDED, failure, results)

    def look(self, batch_id: str) -> BatchCall:
        return BatchCall(f"/batches/{batch_id}")

    def cancel(self, batch_id: str) -> BatchCall:
        return BatchCall(f"/batches/{batch_id}/cancel", b"{}")

    def find(self, after: str | None) -> BatchCall:
        return BatchCall("/batches?limit=100" + ("" if after is None else f"&after={after}"))

    def found(self, payload: Any, sent: Sent) -> Sequence[BatchStatus]:
        named = [
            each for each in listed(payload, self.provider) if (each.get("metadata") or {}).get(_NAME) == sent.name
        ]
        return [self.status(each) for each in named[:1]]

    def oldest(self, payload: Any, sent: Sent) -> str | None:
        page = listed(payload, self.provider)
        times = [each["created_at"] for each in page if isinstance(each.get("created_at"), int)]
        if not payload.get("has_more") or max(times, default=0) < sent.since.timestamp():
            return None
        return _text(page[-1], "id", self.provider)

    def result(self, line: Any) -> BatchResult:
        """`response` is what a single call had answered; `error` is set where there was none."""
        custom_id = _text(line, "custom_id", self.provider)
        response = line.get("response")
        if not isinstance(response, dict):
            return BatchResult(custom_id)
        status, body = response.get("status_code"), response.get("body")
        try:
            if isinstance(status, int) and status >= 400:
                raise self._codec.error(status, body, None)
            return BatchResult(custom_id, answer=self._codec.decode(body))
        except ProviderError as error:
            return BatchResult(custom_id, error=error)

    def error(self, status: int, payload: Any, retry_after: float | None) -> ProviderError:
        return self._codec.error(status, payload, retry_after)


def _failure(payload: Mapping[str, Any]) -> str:
    errors = (payload.get("errors") or {}).get("data") or [{}]
    return str(errors[0].get("message") or "the vendor refused the batch")


def _text(payload: Any, name: str, provider: str) -> str:
    found = payload.get(name) if isinstance(payload, dict) else None
    if not isinstance(found, str):
        raise ProviderBadResponseError(f"an answer of the batch API without {name}", provider=provider, status=200)
    return found
