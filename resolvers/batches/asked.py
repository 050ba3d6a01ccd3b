"""What is submitted as a batch, and what each of its lines has to be."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from persistence.batch_records import BatchMode

from ..checks import MAX_KEY_LENGTH, check_range
from ..errors import BadUserInputError
from ..query_costs import Meter
from ..types import CompleteCommand, ConfigCall

MAX_ITEMS = 100_000
MAX_LINES = 2 * MAX_ITEMS
"""Of a file, with those that are blank."""
MAX_LISTED = 1_000
"""Inputs in the call itself; more come as a file."""
MAX_LINE_BYTES = 8 * 1024 * 1024
MAX_INPUT_BYTES = 2 * 1024**3
"""Of all inputs, with what their configs say: a short line may name a long one."""
MAX_CONCURRENCY = 10_000
MAX_PRIORITY = 9
MAX_LABELS = 19
"""One fewer than a completion may have: the batch's own comes to them."""
MAX_LABEL_LENGTH = 256
MAX_LIFETIME = timedelta(days=30)
LIFETIME = timedelta(days=7)
"""Until its deadline, where none is given: no item waits for a limit for ever."""
MAX_CUSTOM_ID_LENGTH = 256
LABEL = "batch"
"""The label that each completion of a batch carries, its value being the batch's id."""


@dataclass(frozen=True, slots=True)
class ItemAsked:
    """One completion of a batch, by a model or by a config, with the caller's own name for it."""

    call: CompleteCommand | ConfigCall
    custom_id: str | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """One line as it came, and what it means. Reading raises BadUserInputError, its path from `input` on. `line`: its
    number in the file, where blank ones count too; None where it is of no file."""

    raw: bytes
    read: Callable[[], ItemAsked]
    line: int | None = None


@dataclass(frozen=True, slots=True)
class BatchAsked:
    """See `persistence.batch_records.Batch`. `file` is the name of the organisation's file that the lines are of; None
    where they are in the call. `defaults`: what stands for lines that name neither model nor config, as JSON text."""

    mode: BatchMode = BatchMode.LIVE
    priority: int = 5
    concurrency: int | None = None
    deadline: datetime | None = None
    webhook: str | None = None
    idempotency_key: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    file: str | None = None
    defaults: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a line. `line` counts from 1; `path` leads into it; `code` is as an error's."""

    line: int
    path: tuple[str | int, ...]
    message: str
    code: str = BadUserInputError.code


def check_asked(asked: BatchAsked) -> None:
    """What holds for all lines together, whenever it is asked. Raises BadUserInputError."""
    check_range("concurrency", asked.concurrency, 1, MAX_CONCURRENCY)
    check_range("priority", asked.priority, 0, MAX_PRIORITY)
    key = asked.idempotency_key
    if key is not None and not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise BadUserInputError(
            f"idempotencyKey has 1 to {MAX_KEY_LENGTH} characters", path=("input", "idempotencyKey")
        )
    if len(asked.labels) > MAX_LABELS:
        raise BadUserInputError(f"at most {MAX_LABELS} labels", path=("input", "labels"))
    for name, value in asked.labels.items():
        if not name or name == LABEL or len(name) > MAX_LABEL_LENGTH or len(value) > MAX_LABEL_LENGTH:
            raise BadUserInputError(
                f"a label's name has 1 to {MAX_LABEL_LENGTH} characters, its value at most as many; {LABEL!r} is taken",
                path=("input", "labels"),
            )


def check_deadline(asked: BatchAsked, now: datetime) -> None:
    """Raises BadUserInputError for one that has passed, or is too far away."""
    if asked.deadline is None:
        return
    try:
        end = asked.deadline.astimezone(UTC)
    except OverflowError:  # an offset takes it out of the calendar
        end = now
    if not now < end <= now + MAX_LIFETIME:
        raise BadUserInputError(f"the deadline is within {MAX_LIFETIME.days} days from now", path=("input", "deadline"))


def end_of(asked: BatchAsked, now: datetime) -> datetime:
    """Its deadline, in whole milliseconds."""
    end = now + LIFETIME if asked.deadline is None else asked.deadline.astimezone(UTC)
    return end.replace(microsecond=end.microsecond // 1000 * 1000)


async def listed(given: Sequence[Given]) -> AsyncGenerator[Given, None]:
    """Inputs that are in the call itself. Raises BadUserInputError for too many."""
    if len(given) > MAX_LISTED:
        raise BadUserInputError(
            f"at most {MAX_LISTED} inputs in a call, not {len(given)}: more come as a file", path=("input", "inputs")
        )
    for each in given:
        yield each


async def lines_of(chunks: AsyncIterator[bytes], meter: Meter) -> AsyncGenerator[bytes, None]:
    """The lines of a JSON Lines file (https://jsonlines.org), without their ends, the blank ones too. One that is too
    long is the last, and cut."""
    rest = b""
    async for chunk in chunks:
        with meter.working():
            *whole, rest = (rest + chunk).split(b"\n") if b"\n" in chunk else (rest + chunk,)
        for line in whole:
            yield line
        if len(rest) > MAX_LINE_BYTES:
            break
    yield rest


def check_line(line: bytes, number: int) -> None:
    """Raises BadUserInputError for one that is too long, or one too many."""
    if number > MAX_LINES:
        raise BadUserInputError(f"a file has at most {MAX_LINES} lines, with blank ones", path=("input", "file"))
    if len(line) > MAX_LINE_BYTES:
        raise BadUserInputError(f"line {number}: has more than {MAX_LINE_BYTES} bytes", path=("input", "file", number))
