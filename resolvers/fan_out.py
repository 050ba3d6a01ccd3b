"""Several completions at once, each with its own end beside the others'."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from . import completions
from .checks import MAX_TIMEOUT_MS, check_command
from .completion_run import CompletionRun
from .errors import BadUserInputError, DomainError
from .principal import Principal
from .run import DEFAULT_TIMEOUT_MS, Services
from .types import CompleteCommand, Completion

MAX_INPUTS = 50
AT_ONCE = 8

Asked = CompleteCommand | DomainError
"""One input, or why it could not become a command."""

Outcome = Completion | Exception
"""An answer, or what came in its place: a DomainError, or else a defect of ours."""


async def complete_many(services: Services, principal: Principal, inputs: Sequence[Asked]) -> list[Outcome]:
    """Every input's outcome, in the inputs' order; AT_ONCE run at a time, the first inputs first.

    The largest timeout of the inputs bounds them all, waiting included; an input's own, where it is shorter, counts
    from its start. Raises BadUserInputError for more than MAX_INPUTS. The path of a bad input begins with
    ("inputs", index). When its task is cancelled, so are the completions, and what is known of them is booked.
    """
    check_count(inputs)
    fan_out = _FanOut(services, principal, _timeout_ms(inputs))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(fan_out.outcome(index, asked)) for index, asked in enumerate(inputs)]
    return [task.result() for task in tasks]


def check_count(inputs: Sequence[object]) -> None:
    """Raises BadUserInputError for more than MAX_INPUTS."""
    if len(inputs) > MAX_INPUTS:
        raise BadUserInputError(f"at most {MAX_INPUTS} inputs, not {len(inputs)}", path=("inputs",))


def _timeout_ms(inputs: Sequence[Asked]) -> int:
    asked = (each.timeout_ms for each in inputs if isinstance(each, CompleteCommand))
    given = (DEFAULT_TIMEOUT_MS if timeout_ms is None else timeout_ms for timeout_ms in asked)
    return min(max(given, default=DEFAULT_TIMEOUT_MS), MAX_TIMEOUT_MS)


class _FanOut:
    def __init__(self, services: Services, principal: Principal, timeout_ms: int) -> None:
        self._services = services
        self._principal = principal
        self._timeout_ms = timeout_ms
        self._deadline = services.clock() + timeout_ms / 1000
        self._places = asyncio.Semaphore(AT_ONCE)

    async def outcome(self, index: int, asked: Asked) -> Outcome:
        try:
            return await self._complete(asked)
        except BadUserInputError as error:
            return BadUserInputError(error.message, path=("inputs", index, *error.path[1:]))
        except Exception as error:  # noqa: BLE001  # whatever it is, the other completions go on
            return error

    async def _complete(self, asked: Asked) -> Completion:
        if isinstance(asked, DomainError):
            raise asked
        vendors = await self._services.vendors_of(self._principal)
        check_command(asked, vendors)  # a bad input needs no place, and no other timeout may mend it
        async with self._places:
            left_ms = int((self._deadline - self._services.clock()) * 1000)
            if left_ms < 1:
                late = replace(asked, timeout_ms=self._timeout_ms)
                late_run = CompletionRun(self._services, vendors, self._principal, late, streamed=False)
                raise late_run.deadline_exceeded()
            timeout_ms = min(asked.timeout_ms or DEFAULT_TIMEOUT_MS, left_ms)
            return await completions.complete(self._services, self._principal, replace(asked, timeout_ms=timeout_ms))
