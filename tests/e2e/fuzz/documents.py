"""Documents near and far from what the schema takes, and the JSON around them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tests.e2e.documents import CANCEL, COMPLETE, RECORDS, STREAM, USAGE

_LANGUAGE = (
    'query mutation subscription fragment on true false null { } ( ) [ ] : ! = @ | & $ ... , # " """ - . 0 1 -1 1e400 '
    '99999999999999999999 $input $x "x" "\\u0000" "\\uD83D" "" é 🏊 \ufeff \u2028 \x00 __typename __schema __type '
)
_SCHEMA = (
    "complete completionStream viewer usage models node id input model messages role USER content first after filter "
    "by labels name fields @include @skip @defer if Query CompleteInput F G"
)
WORDS = (_LANGUAGE + _SCHEMA).split(" ")
WHOLE = (COMPLETE, CANCEL, STREAM, RECORDS, USAGE, "{ __typename }", "query A { viewer { organisation } }")

_names = st.text(max_size=4) | st.sampled_from(
    ["input", "by", "id", "model", "messages", "role", "content", "first", "after", "filter", "labels", "name", "value"]
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["openai/x", "scripted/echo", "USER", "1.5", "2020-01-01T00:00:00Z"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def edited(draw: st.DrawFn, whole: st.SearchStrategy[str]) -> str:
    """A text with a piece of it left out, doubled, or replaced by words."""
    text = draw(whole)
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 40)))
    words = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
    return text[:start] + draw(st.sampled_from(["", text[start:end] * 2]) | words) + text[end:]


documents = (
    edited(st.sampled_from(WHOLE))
    | st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)
    | st.sampled_from(WHOLE)
    | st.text(max_size=30)
)
requests = st.fixed_dictionaries(
    {"query": documents},
    optional={
        "variables": json_values | st.dictionaries(_names, json_values, max_size=3),
        "operationName": st.none() | st.sampled_from(["A", "Complete", "Stream", ""]) | json_values,
        "extensions": st.none() | st.just({}) | json_values,
    },
)
bodies = (
    requests.map(lambda request: json.dumps(request).encode())
    | edited(requests.map(json.dumps)).map(lambda text: text.encode(errors="surrogatepass"))
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=60)
)
