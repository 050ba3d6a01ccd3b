"""`Retry-After`: of answers that are errors alone, each of which says when to ask again."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.retry_after import retry_after


def error(wait_ms: int | None) -> dict[str, Any]:
    return {"message": "no", "extensions": {"code": "X"} | ({} if wait_ms is None else {"retryAfterMs": wait_ms})}


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        ({"data": {"complete": None}, "errors": [error(1500)]}, b"2"),
        ({"data": None, "errors": [error(1), error(3000)]}, b"3"),
        ({"errors": [error(1000)]}, b"1"),
        ({"data": {"one": None, "other": {}}, "errors": [error(1000)]}, None),
        ({"data": {"one": None, "other": None}, "errors": [error(1000), error(None)]}, None),
        ({"data": {"viewer": {}}}, None),
        ({"data": {"viewer": None}}, None),
    ],
)
def test_when(answer: dict[str, Any], seconds: bytes | None) -> None:
    assert retry_after(answer) == (() if seconds is None else ((b"retry-after", seconds),))
