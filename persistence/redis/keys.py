"""The names of keys and channels. No two of them meet, whatever the names in them.

An organisation's keys share a slot by its hash tag, the text between the first "{" and the first "}" after it, if there
is any: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
"""

from __future__ import annotations

_PREFIX = "ai-middleware"
_ESCAPES = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})


def name_of(kind: str, organisation: str | None, key: str) -> str:
    """`kind`: whose key it is, a word. Without an organisation it is the operator's."""
    if organisation is None:
        return f"{_PREFIX}:{kind}:{key}"
    return f"{_PREFIX}:{{{organisation.translate(_ESCAPES) or '%'}}}:{kind}:{key}"
