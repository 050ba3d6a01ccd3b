"""Lines of a batch's file, as GraphQL reads its input."""

from __future__ import annotations

from time import thread_time

import orjson
import pytest

from graph.batches.lines import reader
from graph.schema import build_schema
from graph.values import MAX_VALUES
from resolvers.errors import BadUserInputError

SCHEMA = build_schema()
MOST_CPU_S = 1.0  # of a line of 8 MiB: to parse it takes 0.1 s, and to read it took 5 s


@pytest.mark.parametrize("within", ["messages", "providerOptions"])
def test_a_line_holds_as_many_values_as_variables_do(within: str) -> None:
    read = reader(SCHEMA._schema, SCHEMA.config, (None, None))
    message = {"role": "USER", "content": "a"}
    assert read(orjson.dumps({"model": "alpha/a-1", "messages": [message] * 3_000})).custom_id is None
    line = orjson.dumps({"model": "alpha/a-1", within: [{"role": "U"}] * 600_000})
    started = thread_time()
    with pytest.raises(BadUserInputError, match=f"has more than {MAX_VALUES} values") as caught:
        read(line)
    assert thread_time() - started < MOST_CPU_S
    assert list(caught.value.path) == ["input"]
