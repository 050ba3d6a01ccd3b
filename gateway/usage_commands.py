"""`ai-middleware usage`: what was used, as a file. A client of the running server."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from zoneinfo import ZoneInfo

import typer

from persistence.records import Outcome
from persistence.usage_records import UsageField
from resolvers.calendar import Bucket
from resolvers.errors import BadUserInputError
from resolvers.usage import zone_named

from . import client
from .calling import TokenOption, UrlOption, access, told_apart
from .console import fail

PRINTED = Path("-")
_LABEL = "label:"
_FIELDS = ", ".join(UsageField)

app = typer.Typer(name="usage", help="What was used, and what it cost.", no_args_is_help=True)


@app.callback()
def _commands() -> None:
    """With a single command typer would make that the group itself."""


@app.command(name="export")
def export_usage(
    since: Annotated[str, typer.Option(help="ISO 8601, such as 2026-03-01. Without an offset: in --time-zone.")],
    until: Annotated[str, typer.Option(help="Up to, and without, this time.")],
    bucket: Annotated[Bucket | None, typer.Option(help="A line for each. Absent: one for the whole range.")] = None,
    time_zone: Annotated[str, typer.Option(help="An IANA name, such as Europe/Berlin.")] = "UTC",
    group_by: Annotated[
        list[str] | None, typer.Option(metavar="DIMENSION", help=f"{_FIELDS}, or label:NAME. May be repeated.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="DIMENSION=VALUE", help="One value of several, where one is given twice."),
    ] = None,
    output: Annotated[Path, typer.Option(help="The file to write; `-` prints instead.")] = PRINTED,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Writes usage as CSV: a line for each bucket of each group."""
    zone = _zone(time_zone)
    asked = {
        "since": _time(since, zone, "--since"),
        "until": _time(until, zone, "--until"),
        "bucket": None if bucket is None else bucket.name,
        "timeZone": time_zone,
        "groupBy": [_dimension(each) for each in group_by or ()],
        "filter": _conditions(only or ()),
    }
    address, bearer = access(url, token)
    try:
        with told_apart(address), written_to(output) as file:
            asyncio.run(_download(address, bearer, asked, file))
    except OSError as error:
        fail(f"{output} can't be written: {error.strerror}")


async def _download(address: str, bearer: str, asked: Mapping[str, Any], file: BinaryIO) -> None:
    async with client.usage_csv(address, bearer, asked) as chunks:
        async for chunk in chunks:
            file.write(chunk)  # to a local disk, by a process that does nothing else


@contextmanager
def written_to(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name when it is whole; where it does not come to that, what was there stays."""
    if path == PRINTED:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if path.exists() and not path.is_file():  # a pipe, a terminal, /dev/null: nothing to put a file in the place of
        with path.open("wb") as file:
            yield file
        return
    path = path.resolve()
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with unfinished.open("xb") as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _zone(name: str) -> ZoneInfo:
    try:
        return zone_named(name)
    except BadUserInputError as error:
        fail(f"--time-zone: {error.message}")


def _time(text: str, zone: ZoneInfo, option: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option} is not a time in ISO 8601, such as 2026-03-01 or 2026-03-01T09:30:00+05:30")
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).isoformat()


def _dimension(text: str) -> dict[str, str]:
    if text.startswith(_LABEL):
        return {"label": text.removeprefix(_LABEL)}
    return {"field": _field(text, "--group-by").name}


def _conditions(given: Sequence[str]) -> dict[str, Any]:
    """As the API's UsageFilter has them."""
    fields: dict[str, Any] = {}
    labels: list[dict[str, str]] = []
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            fail(f"--filter is of the form DIMENSION=VALUE, such as provider=openai: {text}")
        if name.startswith(_LABEL):
            labels.append({"name": name.removeprefix(_LABEL), "value": value})
        else:
            field = _field(name, "--filter")
            fields.setdefault(_camel(field), []).append(_value(field, value))
    return fields | ({"labels": labels} if labels else {})


def _field(name: str, option: str) -> UsageField:
    try:
        return UsageField(name)
    except ValueError:
        fail(f"{option}: {name} is none of {_FIELDS}, label:NAME")


def _value(field: UsageField, text: str) -> str | int:
    try:
        match field:
            case UsageField.CONFIG_VERSION:
                return int(text)
            case UsageField.OUTCOME:
                return Outcome(text).name
            case _:
                return text
    except ValueError:
        fail(f"--filter: {text} is no {field}")


def _camel(field: UsageField) -> str:
    first, *others = field.split("_")
    return first + "".join(map(str.title, others))
