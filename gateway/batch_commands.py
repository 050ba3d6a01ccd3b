"""`ai-middleware batch`: many completions from a file. A client of the running server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urljoin

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from persistence.batch_records import BatchMode

from . import client
from .calling import TokenOption, UrlOption, access, told_apart
from .client import ApiError
from .console import errors, fail
from .usage_commands import PRINTED, written_to

_FIELDS = "id state mode run cost unpriced createdAt endedAt estimatedEndAt" + (
    " counts { total waiting queued running succeeded failed cancelled }"
)
_UPLOAD = "mutation Upload($input: UploadBatchFileInput!) { uploadBatchFile(input: $input) { file url } }"
_SUBMIT = f"""
mutation Submit($input: SubmitBatchInput!) {{
  submitBatch(input: $input) {{
    batch {{ {_FIELDS} }}
    rehearsal {{ items mostCost unpriced wrong problems {{ line path message }} }}
  }}
}}
"""  # GraphQL
_BATCH = f"query Batch($id: ID!) {{ batch(id: $id) {{ {_FIELDS} results {{ url }} }} }}"
_LIST = f"query Batches($first: Int!) {{ batches(first: $first) {{ nodes {{ {_FIELDS} }} }} }}"
_CANCEL = f"mutation Cancel($input: CancelBatchInput!) {{ cancelBatch(input: $input) {{ {_FIELDS} }} }}"
_RETRY = f"mutation Retry($input: RetryBatchInput!) {{ retryBatch(input: $input) {{ {_FIELDS} }} }}"
_WATCH = f"subscription Watch($id: ID!) {{ batchProgress(id: $id) {{ {_FIELDS} }} }}"
_ENDED = ("COMPLETED", "CANCELLED")

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `batch submit` and `batch list` tell it.")]
WatchOption = Annotated[bool, typer.Option("--watch", help="Stay until it has ended, and show how far it is.")]

app = typer.Typer(name="batch", help="Many completions from a file, worked on in their own time.", no_args_is_help=True)
output = Console(highlight=False, soft_wrap=True, markup=False)


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="JSON Lines: each a CompleteInput, with a customId if you like.")],
    model: Annotated[str | None, typer.Option(help="provider/model, for lines that name none.")] = None,
    config: Annotated[str | None, typer.Option(help="A config's slug, for lines that name none.")] = None,
    mode: Annotated[BatchMode, typer.Option(help="live: by our workers. provider: by the vendor's batch API.")] = (
        BatchMode.LIVE
    ),
    concurrency: Annotated[int | None, typer.Option(help="In mode live: so many items at once at most.")] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 9; 5 where absent.")] = None,
    deadline: Annotated[str | None, typer.Option(help="ISO 8601 with an offset; 7 days where absent.")] = None,
    webhook: Annotated[str | None, typer.Option(help="The id of the webhook that alone is told of its end.")] = None,
    key: Annotated[str | None, typer.Option(help="An idempotency key: submitted twice, it is one batch.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and price every line, and submit nothing.")] = False,
    watch: WatchOption = False,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Submits a file, and prints the batch's id."""
    address, bearer = access(url, token)
    asked: dict[str, Any] = {
        "model": model,
        "config": None if config is None else {"slug": config},
        "mode": mode.name,
        "concurrency": concurrency,
        "priority": priority,
        "deadline": deadline,
        "webhook": webhook,
        "idempotencyKey": key,
        "labels": [_label(each) for each in label or ()],
        "dryRun": dry_run,
    }
    with told_apart(address):
        asyncio.run(_submit(address, bearer, file, asked, watch=watch))


async def _submit(address: str, bearer: str, file: Path, asked: dict[str, Any], *, watch: bool) -> None:
    try:
        content = file.read_bytes()  # noqa: ASYNC240  # a process that does nothing else
    except OSError as error:
        fail(f"{file} can't be read: {error.strerror}")
    link = await client.ask(address, bearer, "uploadBatchFile", _UPLOAD, {"input": {}})
    await client.put(urljoin(address, link["url"]), content)
    answer = await client.ask(address, bearer, "submitBatch", _SUBMIT, {"input": {**asked, "file": link["file"]}})
    if (rehearsal := answer["rehearsal"]) is not None:
        _print_rehearsal(rehearsal)
        return
    batch = answer["batch"]
    typer.echo(batch["id"])
    if watch:
        await _watch(address, bearer, batch)


@app.command(name="list")
def list_batches(
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many, the newest first.")] = 20,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Lists batches: how far each is, and what it has cost."""
    address, bearer = access(url, token)
    with told_apart(address):
        nodes = asyncio.run(client.ask(address, bearer, "batches", _LIST, {"first": limit}))["nodes"]
    table = Table("id", "state", "mode", "done", "failed", "cost", "submitted", box=None, pad_edge=False)
    for batch in nodes:
        counts = batch["counts"]
        done = f"{_done(counts)}/{counts['total']}"
        cells = batch["id"], batch["state"], batch["mode"], done, str(counts["failed"]), batch["cost"]
        table.add_row(*cells, batch["createdAt"])
    output.print(table)


@app.command()
def show(id: IdArgument, watch: WatchOption = False, url: UrlOption = None, token: TokenOption = None) -> None:  # noqa: A002
    """Shows a batch."""
    address, bearer = access(url, token)
    with told_apart(address):
        batch = asyncio.run(client.ask(address, bearer, "batch", _BATCH, {"id": id}))
        if watch and batch["state"] not in _ENDED:
            asyncio.run(_watch(address, bearer, batch))
        else:
            _print_batch(batch)


@app.command()
def cancel(id: IdArgument, url: UrlOption = None, token: TokenOption = None) -> None:  # noqa: A002
    """Stops a batch; one that has ended stays as it is."""
    address, bearer = access(url, token)
    with told_apart(address):
        _print_batch(asyncio.run(client.ask(address, bearer, "cancelBatch", _CANCEL, {"input": {"id": id}})))


@app.command()
def retry(
    id: IdArgument,  # noqa: A002
    cancelled: Annotated[bool, typer.Option("--cancelled", help="What was cancelled too.")] = False,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Has what failed run anew."""
    address, bearer = access(url, token)
    asked = {"id": id, "onlyFailed": not cancelled}
    with told_apart(address):
        _print_batch(asyncio.run(client.ask(address, bearer, "retryBatch", _RETRY, {"input": asked})))


@app.command()
def results(
    id: IdArgument,  # noqa: A002
    file: Annotated[Path, typer.Option("--output", help="The file to write; `-` prints instead.")] = PRINTED,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Writes the results of a batch that has ended: JSON Lines, in the inputs' order."""
    address, bearer = access(url, token)
    try:
        with told_apart(address):
            asyncio.run(_download(address, bearer, id, file))
    except OSError as error:
        fail(f"{file} can't be written: {error.strerror}")


async def _download(address: str, bearer: str, batch_id: str, file: Path) -> None:
    batch = await client.ask(address, bearer, "batch", _BATCH, {"id": batch_id})
    if batch["results"] is None:
        raise ApiError(f"{batch_id} has not ended: `ai-middleware batch show {batch_id} --watch` waits for that")
    with written_to(file) as written:
        async with client.file(urljoin(address, batch["results"]["url"])) as chunks:
            async for chunk in chunks:
                written.write(chunk)  # to a local disk, by a process that does nothing else


async def _watch(address: str, bearer: str, batch: Mapping[str, Any]) -> None:
    """A bar on standard error, and what became of it on standard output."""
    columns = (
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[more]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors) as progress:
        total = batch["counts"]["total"]
        task = progress.add_task(batch["id"], total=total, completed=_done(batch["counts"]), more="")
        async with aclosing(_states(address, bearer, batch["id"])) as states:
            async for batch in states:  # the newest
                counts = batch["counts"]
                more = f"{counts['failed']} failed, {counts['running']} running, {batch['cost']} USD"
                progress.update(task, completed=_done(counts), more=more)
    _print_batch(batch)
    if batch["counts"]["failed"]:
        raise SystemExit(1)


def _states(address: str, bearer: str, batch_id: str) -> AsyncGenerator[Mapping[str, Any], None]:
    return client.events(address, bearer, "batchProgress", _WATCH, {"id": batch_id})


def _print_batch(batch: Mapping[str, Any]) -> None:
    counts = batch["counts"]
    told = ", ".join(f"{counts[name]} {name}" for name in counts if name != "total" and counts[name])
    typer.echo(f"{batch['id']} {batch['state']}: {told} of {counts['total']}; {batch['cost']} USD")


def _print_rehearsal(found: Mapping[str, Any]) -> None:
    typer.echo(f"{found['items']} items, at most {found['mostCost']} USD for one attempt at each")
    if found["unpriced"]:
        typer.echo(f"{found['unpriced']} of them have no known price or bound, and are not in it")
    for problem in found["problems"]:
        place = f"line {problem['line']}" + (f", {problem['path']}" if problem["path"] else "")
        typer.echo(f"{place}: {problem['message']}", err=True)
    if found["wrong"]:
        fail(f"{found['wrong']} lines would be refused")


def _done(counts: Mapping[str, int]) -> int:
    return counts["succeeded"] + counts["failed"] + counts["cancelled"]


def _label(text: str) -> dict[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        fail(f"--label is of the form NAME=VALUE: {text}")
    return {"name": name, "value": value}
