"""How the tables write labels, so that one is found by its text."""

from __future__ import annotations

from collections.abc import Mapping

import orjson


def labels_text(labels: Mapping[str, str]) -> str:
    """JSON with a pair on each line. A line break within a text is escaped, so `label_line` finds whole pairs only.
    Raises ValueError."""
    if not labels:
        return "{}"
    try:
        return orjson.dumps(dict(labels), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONEncodeError as error:
        raise ValueError(f"labels are pairs of texts: {error}") from error


def label_line(name: str, value: str) -> str:
    """What such a text holds where it has this pair."""
    return labels_text({name: value})[1:-2]


def label_head(name: str) -> str:
    """What of its line comes before the value, which is a JSON text with a comma or without."""
    return label_line(name, "")[:-2]
