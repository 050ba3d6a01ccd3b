"""Input types built by a plan that is made once, where Strawberry resolves every field's type and name anew.

An absent field is None, as a null one is: no input of this schema tells them apart. So defaults are UNSET, which keeps
them out of the schema, and graphql-core from coercing every default for every request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from strawberry.schema.config import StrawberryConfig
from strawberry.types.arguments import InputContext
from strawberry.types.base import StrawberryList, StrawberryOptional, StrawberryType, has_object_definition
from strawberry.types.unset import UNSET

Input = TypeVar("Input")
Build = Callable[[Any], Any]


def planned(input_type: type[Input]) -> type[Input]:
    """Class decorator, above `@strawberry.input`: values of this type are built by its plan."""
    definition = input_type.__strawberry_definition__  # type: ignore[attr-defined]  # set by the decorator below
    definition.from_input = _from_input
    return input_type


def built(input_type: type[Input], value: Mapping[str, Any], config: StrawberryConfig) -> Input:
    """Of a value that graphql-core has coerced."""
    found: Input = _plan(input_type, config.name_converter.from_field)(value)  # type: ignore[arg-type]  # types are hashable
    return found


def _from_input(input_type: type[Any], value: Mapping[str, Any], context: InputContext) -> Any:
    return _plan(input_type, context.config.name_converter.from_field)(value)  # type: ignore[arg-type]  # types are hashable


@cache  # one entry an input type: as many as the schema has
def _plan(input_type: type[Any], name_of: Callable[[Any], str]) -> Build:
    definition = input_type.__strawberry_definition__
    fields = [
        (name_of(field), field.python_name, _converter(field.resolve_type(type_definition=definition), name_of))
        for field in definition.fields
    ]
    absent = {field.python_name: None for field in definition.fields if field.default_value is UNSET}

    def build(value: Mapping[str, Any]) -> Any:
        arguments: dict[str, Any] = dict(absent)
        for name, python_name, convert in fields:
            if name in value:
                given = value[name]
                arguments[python_name] = given if convert is None or given is None else convert(given)
        return input_type(**arguments)

    return build


def _converter(kind: StrawberryType | type[Any], name_of: Callable[[Any], str]) -> Build | None:
    """How a coerced value of this type becomes Python's; None where graphql-core's own value serves."""
    if isinstance(kind, StrawberryOptional):
        return _converter(kind.of_type, name_of)
    if isinstance(kind, StrawberryList):
        convert = _converter(kind.of_type, name_of)
        if convert is None:
            return None
        return lambda items: [None if item is None else convert(item) for item in items]
    return _plan(kind, name_of) if has_object_definition(kind) else None
