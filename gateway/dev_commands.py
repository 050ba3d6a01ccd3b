"""`ai-middleware dev`: what helps while developing, and is refused in production."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from persistence.migrations.sqlite import migrate
from persistence.ports import StoreUnavailableError

from .console import errors
from .keys import DEVELOPER_ORGANISATION
from .seeding import book, made_up_usage
from .settings import Environment, Settings, SettingsError, load_settings
from .stores import DATABASE_FILE, open_usage_store

MAX_ROWS = 100_000_000
MAX_DAYS = 3_650

app = typer.Typer(name="dev", help="While developing; refused with ENVIRONMENT=PRODUCTION.", no_args_is_help=True)


@app.callback()
def development() -> None:
    """While developing; refused with ENVIRONMENT=PRODUCTION."""
    if load_settings().ENVIRONMENT is Environment.PRODUCTION:
        raise SettingsError("ENVIRONMENT: PRODUCTION has no `dev` commands: they write made-up data")


@app.command(name="seed-usage")
def seed_usage(
    rows: Annotated[int, typer.Option(min=1, max=MAX_ROWS, help="How many entries.")],
    days: Annotated[int, typer.Option(min=1, max=MAX_DAYS, help="Up to now, over how many days.")] = 30,
    organisation: Annotated[str, typer.Option(help="Whose usage.")] = DEVELOPER_ORGANISATION,
    seed: Annotated[int, typer.Option(help="Another number makes other data.")] = 1,
) -> None:
    """Fills the usage ledger with made-up entries: models, configs, callers, labels, retries and failures."""
    settings = load_settings()
    began = time.monotonic()
    try:
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        migrate(settings.DATA_DIR / DATABASE_FILE)
    except (OSError, StoreUnavailableError) as error:
        raise SettingsError(f"DATA_DIR: {error}") from None
    asyncio.run(_seed(settings, rows, days, organisation, seed))
    took = time.monotonic() - began
    typer.echo(f"{rows:,} entries of {organisation} in {took:.1f} s: {rows / took:,.0f} a second")


async def _seed(settings: Settings, rows: int, days: int, organisation: str, seed: int) -> None:
    until = datetime.now(UTC).replace(microsecond=0)
    entries = made_up_usage(organisation, rows, since=until - timedelta(days=days), until=until, seed=seed)
    columns = (TextColumn("entries"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        shown = progress.add_task("entries", total=rows)
        async with open_usage_store(settings) as store:
            async for booked in book(store, entries):
                progress.update(shown, completed=booked)
