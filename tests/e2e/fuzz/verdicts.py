"""What no answer may be, whatever was asked: an error of the server's own, or one that tells of its inside."""

from __future__ import annotations

import re
from typing import Any

import httpx
import orjson

STATUSES = {200, 400, 401, 405, 406, 413, 415}
CLOSES = {1002, 1007, 1009, 4400, 4401, 4403, 4409, 4429}
_INSIDE = re.compile(
    r"Traceback|\.py\b|object at 0x|<class|NoneType|coroutine|site-packages|sqlite3?\.|"
    r"\b(?:Type|Value|Key|Attribute|Index|Runtime|Assertion|Unicode\w*|Recursion|Overflow|JSONDecode|Operational)Error\b"
)


def check_errors(errors: list[dict[str, Any]]) -> None:
    """Each is coded, and none is INTERNAL."""
    assert errors
    for error in errors:
        assert error["extensions"]["code"] != "INTERNAL", error
        assert not _INSIDE.search(error["message"]), error


def check_result(result: dict[str, Any]) -> None:
    assert result.keys() <= {"data", "errors", "extensions"}
    if "errors" in result:
        check_errors(result["errors"])
    else:
        assert result["data"] is not None


def check_answer(answer: httpx.Response) -> None:
    assert answer.status_code in STATUSES, answer.text
    check_result(orjson.loads(answer.content))
