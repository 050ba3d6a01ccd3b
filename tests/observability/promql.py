"""What a PromQL expression asks for, by a parser."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

import promql_parser as promql

COMPARISONS = frozenset({"==", "!=", ">", "<", ">=", "<="})
SETS = frozenset({"and", "or", "unless"})
VARIABLES = {"$__rate_interval": "30m", "$provider": ".*"}
"""Of the dashboards: longer than a test runs, whichever provider."""


@dataclass(frozen=True)
class Selector:
    metric: str
    text: str
    """It selects its series and nothing else."""


def filled(text: str) -> str:
    for name, value in VARIABLES.items():
        text = text.replace(name, value)
    return text


def selectors(text: str) -> list[Selector]:
    return [Selector(node.name, str(node)) for node in nodes(text) if isinstance(node, promql.VectorSelector)]


def grouped_labels(text: str) -> Set[str]:
    """Those by which an aggregation groups."""
    found: set[str] = set()
    for node in nodes(text):
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            found |= set(node.modifier.labels)
    return found


def measured(text: str) -> list[str]:
    """The parts of an alert's expression that it compares, without what it compares them with."""
    return list(_measured(promql.parse(filled(text))))


def nodes(text: str) -> list[Any]:
    found: list[Any] = []
    promql.walk(promql.parse(filled(text)), found.append)
    return found


def _measured(node: Any) -> Iterator[str]:
    if isinstance(node, promql.ParenExpr):
        yield from _measured(node.expr)
    elif isinstance(node, promql.BinaryExpr) and str(node.op) in COMPARISONS | SETS:
        yield from _measured(node.lhs)
        if str(node.op) in SETS:
            yield from _measured(node.rhs)
    elif isinstance(node, promql.Call) and node.func.name == "absent":
        yield from _measured(node.args[0])
    else:
        yield str(node)
