"""`ai-middleware queue`: what waits, and what is parked after its last failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from typing import Annotated, TypeVar

import orjson
import typer
from rich.console import Console
from rich.table import Table

from persistence.migrations.sqlite import migrate
from persistence.ports import JobQueue, StoreUnavailableError
from persistence.queue_records import Job

from .console import fail
from .settings import Settings, SettingsError, load_settings
from .stores import DATABASE_FILE, open_queue

MOST = 100_000

IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="As `queue list` shows them.")]
AllOption = Annotated[bool, typer.Option("--all", help="All that are parked.")]

_T = TypeVar("_T")

app = typer.Typer(name="queue", help="Queued jobs, and those that are parked after their last failure.")
output = Console(highlight=False, soft_wrap=True, markup=False)


@app.callback()
def _commands() -> None:
    """Works on the queue of the settings, beside the servers and workers that run."""


@app.command()
def status() -> None:
    """Prints how many jobs are ready, rest after a failure, and are parked."""
    depth = _on_queue(lambda queue: queue.depth())
    typer.echo(f"ready {depth.ready}\nresting {depth.resting}\nparked {depth.parked}")


@app.command(name="list")
def list_parked(
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="At most so many, the oldest first.")] = 50,
) -> None:
    """Lists what is parked: its id, kind, age, failures and the last reason."""
    jobs = _on_queue(lambda queue: queue.parked(limit=limit))
    if not jobs:
        typer.echo("nothing is parked")
        return
    table = Table(box=None, pad_edge=False)
    rows = [_cells(job) for job in jobs]
    for title in rows[0]:  # one line a job, as wide as it is: for people, and for grep
        table.add_column(title, no_wrap=True, min_width=max(len(row[title]) for row in rows))
    for row in rows:
        table.add_row(*row.values())
    output.print(table)


@app.command()
def show(job_id: Annotated[str, typer.Argument(metavar="ID", help="As `queue list` shows it.")]) -> None:
    """Prints a parked job as JSON, its body with it."""
    jobs = _on_queue(lambda queue: queue.parked(limit=MOST))
    job = next((each for each in jobs if each.id == job_id), None)
    if job is None:
        fail(f"no job {job_id} is parked")
    typer.echo(_told(job))


@app.command()
def replay(ids: IdsArgument = None, every: AllOption = False) -> None:
    """Gives parked jobs to the workers once more, their failures forgotten."""
    _end("replayed", ids, every, lambda queue, names: queue.replay(names))


@app.command()
def drop(ids: IdsArgument = None, every: AllOption = False) -> None:
    """Forgets parked jobs for good. What a ledger job holds is then in no ledger."""
    _end("dropped", ids, every, lambda queue, names: queue.drop(names))


def _end(
    told: str,
    ids: Sequence[str] | None,
    every: bool,
    end: Callable[[JobQueue, Sequence[str]], Awaitable[Set[str]]],
) -> None:
    if bool(ids) is every:
        fail("name the jobs, or give --all")

    async def run(queue: JobQueue) -> Sequence[str]:
        names = [job.id for job in await queue.parked(limit=MOST)] if every else ids or []
        found = await end(queue, names)
        return [name for name in names if name not in found]

    missing = _on_queue(run)
    if missing:
        fail(f"not parked, and so not {told}: {', '.join(missing)}")
    typer.echo(f"{told}: {'all that were parked' if every else ', '.join(ids or [])}")


def _cells(job: Job) -> Mapping[str, str]:
    told = {
        "Id": job.id,
        "Kind": job.kind,
        "Created": job.created_at.isoformat(timespec="seconds"),
        "Failures": str(job.failures),
        "Reason": job.reason or "",
    }
    return {title: _in_a_line(text) for title, text in told.items()}


def _in_a_line(text: str) -> str:
    """An error's text may have several; and what a terminal would obey is nobody's to send."""
    return "".join(each if each.isprintable() else " " for each in text)


def _told(job: Job) -> str:
    try:
        body = orjson.loads(job.body)
    except orjson.JSONDecodeError:
        body = job.body
    told = {
        "id": job.id,
        "kind": job.kind,
        "createdAt": job.created_at,
        "failures": job.failures,
        "reason": job.reason,
        "body": body,
    }
    return orjson.dumps(told, option=orjson.OPT_INDENT_2).decode()


def _on_queue(work: Callable[[JobQueue], Awaitable[_T]]) -> _T:
    settings = load_settings()
    if settings.QUEUE_CONNECTIONURL is None:
        _migrated(settings)

    async def run() -> _T:
        async with open_queue(settings) as queue:
            return await work(queue)

    return asyncio.run(run())


def _migrated(settings: Settings) -> None:
    try:
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        migrate(settings.DATA_DIR / DATABASE_FILE)
    except (OSError, StoreUnavailableError) as error:
        raise SettingsError(f"DATA_DIR: {error}") from None
