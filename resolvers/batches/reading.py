"""From lines to commands: each checked as a completion of its own would be, and refused by its number and field."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, replace

from persistence.batch_records import BatchMode
from providers.prices import BATCH_SHARES

from ..booking import input_size
from ..checks import check_command
from ..config_content import command_of
from ..configs import Configs
from ..errors import BadUserInputError, DomainError, ForbiddenError, NotFoundError
from ..permits import check_permitted
from ..principal import Principal
from ..query_costs import Meter
from ..routing import Vendor
from ..types import CompleteCommand, ConfigCall
from .asked import LABEL, MAX_CUSTOM_ID_LENGTH, MAX_INPUT_BYTES, MAX_ITEMS, BatchAsked, Given, Problem


@dataclass(frozen=True, slots=True)
class ReadLine:
    """`number` counts from 1; `size`: of what the model is to read, in bytes."""

    number: int
    raw: bytes
    custom_id: str | None
    command: CompleteCommand
    size: int


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the lines of one batch. `vendors` are what the organisation's calls go to; `meter` is its caller's."""

    configs: Configs
    vendors: Mapping[str, Vendor]
    principal: Principal
    asked: BatchAsked
    batch_id: str
    meter: Meter

    async def read(self, source: AsyncIterator[Given]) -> AsyncGenerator[ReadLine | Problem, None]:
        """Every line, or what is wrong with it. Raises BadUserInputError for too many, too much, or none at all; and
        what is no fault of a line, as ServiceUnavailableError."""
        count = size = 0
        async for given in source:
            count += 1
            number = given.line or count
            if count > MAX_ITEMS:
                raise BadUserInputError(f"a batch has at most {MAX_ITEMS} inputs", path=("input",))
            await self.meter.turn()
            try:
                line = await self._line(number, given)
            except BadUserInputError as error:
                yield Problem(number, tuple(error.path[1:]), error.message)
            except DomainError as error:
                if error.retryable:
                    raise
                yield Problem(number, (), error.message, error.code)
            else:
                size += line.size
                if size > MAX_INPUT_BYTES:
                    raise BadUserInputError(
                        f"the inputs of a batch have at most {MAX_INPUT_BYTES} bytes, with what their configs say",
                        path=("input",),
                    )
                yield line
        if not count:
            raise BadUserInputError("a batch has at least one input", path=("input",))

    async def _line(self, number: int, given: Given) -> ReadLine:
        with self.meter.working():
            asked = given.read()
        if asked.custom_id is not None and not 1 <= len(asked.custom_id) <= MAX_CUSTOM_ID_LENGTH:
            raise BadUserInputError(f"customId has 1 to {MAX_CUSTOM_ID_LENGTH} characters", path=("input", "customId"))
        call = asked.call
        if not isinstance(call, ConfigCall):
            with self.meter.working():
                return self._checked(number, given.raw, asked.custom_id, call)
        version = await self.configs.called(self.principal, call)
        with self.meter.working():
            return self._checked(number, given.raw, asked.custom_id, command_of(version, call))

    def _checked(self, number: int, raw: bytes, custom_id: str | None, command: CompleteCommand) -> ReadLine:
        if command.idempotency_key is not None:
            raise BadUserInputError(
                "an input of a batch has no idempotencyKey of its own: give the batch one",
                path=("input", "idempotencyKey"),
            )
        labels = {**self.asked.labels, **command.labels, LABEL: self.batch_id}
        command = replace(command, labels=labels)
        check_command(command, self.vendors)
        check_permitted(self.principal, command)
        if self.asked.mode is BatchMode.PROVIDER:
            _check_for_vendor(command)
        return ReadLine(number, raw, custom_id, command, input_size(command))


def _check_for_vendor(command: CompleteCommand) -> None:
    if command.target.provider not in BATCH_SHARES:
        ready = ", ".join(sorted(BATCH_SHARES))
        raise BadUserInputError(
            f"{command.target.provider[:100]!r} has no batch API that is known here: mode PROVIDER is for {ready}",
            path=("input", "model"),
        )
    if command.fallbacks:
        raise BadUserInputError(
            "a vendor's batch has no fallbacks: leave them out, or use mode LIVE", path=("input", "fallbacks")
        )


def refusal(problem: Problem, *, file: bool) -> DomainError:
    """Names the line by its number, and the field."""
    field = ".".join(map(str, problem.path))
    place = ("input", "file", problem.line) if file else ("input", "inputs", problem.line - 1)
    told = f"line {problem.line}" if file else f"inputs[{problem.line - 1}]"
    message = f"{told}{', ' + field if field else ''}: {problem.message}"
    match problem.code:
        case NotFoundError.code:
            return NotFoundError(message)
        case ForbiddenError.code:
            return ForbiddenError(message)
    return BadUserInputError(message, path=(*place, *problem.path))
