"""`ai-middleware config`: configs as files in a repository. Clients of the GraphQL API."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import unified_diff
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from . import client
from .calling import TokenOption, UrlOption, access, told_apart
from .config_files import SUFFIX, ConfigFileError, FileContent, file_of, read_folder, write_file
from .config_plan import Action, Ask, Standing, Step, apply, is_done, plan, refusal, standing_configs, without_file
from .console import complain, errors, fail

TROUBLE = 2  # of `diff`, where 1 tells of differences

app = typer.Typer(name="config", help="Configs as files: one <slug>.yaml a config.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Where the files are.")]


@app.command(name="export")
def export_configs(folder: Folder, url: UrlOption = None, token: TokenOption = None) -> None:
    """Writes a file for each config in use: its published version, or the draft of one that was never published."""
    address, bearer = access(url, token)
    with told_apart(address):
        standing = asyncio.run(standing_configs(_ask(address, bearer)))
    used = [each for each in standing.values() if not each.archived]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = sum(write_file(file_of(folder, each.slug), each.exported) for each in used)
    except OSError as error:
        fail(f"{folder}: can't be written: {error.strerror}")
    except ConfigFileError as error:
        fail(str(error))
    for note in _notes(folder, used):
        errors.print(note, style="dim")
    typer.echo(f"{folder}: {_count(len(used), 'config')}, {_count(written, 'file')} written")


@app.command(name="diff")
def diff_configs(folder: Folder, url: UrlOption = None, token: TokenOption = None) -> None:
    """Shows what differs between the server's configs and the files. Exit code 1 where anything does, 2 for trouble."""
    address, bearer = access(url, token)
    files = _read(folder, code=TROUBLE)
    with told_apart(address, code=TROUBLE):
        standing = asyncio.run(standing_configs(_ask(address, bearer)))
    differing = False
    for slug in sorted({*files, *standing}):
        for line in _differences(folder, slug, files.get(slug), standing.get(slug)):
            differing = True
            typer.echo(line)
    raise typer.Exit(1 if differing else 0)


@app.command(name="import")
def import_configs(
    folder: Folder,
    make: Annotated[bool, typer.Option("--apply", help="Carry the plan out; without it nothing is changed.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Archive configs that have no file.")] = False,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Shows what would make the server's configs the files', and with --apply does it. Exit code 1 where any failed."""
    address, bearer = access(url, token)
    files = _read(folder)
    if prune and not files:
        fail(f"{folder}: has no config's file, and --prune would archive every config")
    with told_apart(address):
        failed = asyncio.run(_import(_ask(address, bearer), files, make=make, prune=prune))
    raise typer.Exit(1 if failed else 0)


async def _import(ask: Ask, files: Mapping[str, FileContent], *, make: bool, prune: bool) -> int:
    """Prints the plan, carries it out where that is asked for, and returns how many steps failed."""
    standing = await standing_configs(ask)
    steps = plan(files, standing, prune=prune)
    refused = {step.slug: reason for step in steps if (reason := await refusal(ask, step)) is not None}
    for step in steps:
        typer.echo(f"{step.action:<10} {step.slug}{_told_of(step)}")
    for each in () if prune else without_file(files, standing):
        typer.echo(f"{'no file':<10} {each.slug} (left alone; --prune archives it)")
    for slug, reason in refused.items():
        complain(f"{slug}: can't be published: {reason}")
    if refused:
        typer.echo(f"{_summary(steps)}; nothing was changed: {_count(len(refused), 'file')} can't be published")
        return len(refused)
    if not make:
        typer.echo(f"{_summary(steps)}; nothing was changed: --apply does it")
        return 0
    failed = await carry_out(ask, steps)
    typer.echo(f"{_summary(steps)}; {failed} failed" if failed else f"{_summary(steps)}; done")
    return failed


async def carry_out(ask: Ask, steps: Sequence[Step]) -> int:
    """Every step, also where others fail; these are told of by name. Returns how many failed; one that another import
    was quicker with has not."""
    failed: dict[str, client.ApiError] = {}
    for step in steps:
        try:
            await apply(ask, step)
        except client.ApiError as error:
            failed[step.slug] = error
    if failed:
        standing = await standing_configs(ask)
        failed = {step.slug: failed[step.slug] for step in steps if step.slug in failed and not is_done(step, standing)}
    for slug, reason in failed.items():
        complain(f"{slug}: {reason}")
    return len(failed)


def _ask(address: str, bearer: str) -> Ask:
    return partial(client.ask, address, bearer)


def _read(folder: Path, *, code: int = 1) -> Mapping[str, FileContent]:
    files, problems = read_folder(folder)
    for problem in problems:
        complain(str(problem))
    if problems:
        raise typer.Exit(code)
    return files


def _notes(folder: Path, used: Sequence[Standing]) -> Iterator[str]:
    """What an export leaves to be known."""
    for each in used:
        if each.published is None:
            yield f"{each.slug}: was never published; an import publishes it"
        elif each.published.text() != each.draft.text():
            yield f"{each.slug}: has an unpublished draft, which is not in its file"
    for path in sorted({*folder.glob(f"*{SUFFIX}")} - {file_of(folder, each.slug) for each in used}):
        yield f"{path}: no config in use is named so; the file is left as it is"


def _differences(folder: Path, slug: str, wanted: FileContent | None, standing: Standing | None) -> Iterator[str]:
    """Line by line, from the server to the file; none where they are the same."""
    if wanted is None:
        if standing is not None and not standing.archived:
            yield f"Only on the server: {slug}"
        return
    if standing is not None and standing.archived:
        yield f"Archived on the server: {slug}"
    published = None if standing is None else standing.published
    name = f"server, version {standing.version}" if standing is not None and published is not None else "server, none"
    before = "" if published is None else published.text()
    yield from unified_diff(_lines(before), _lines(wanted.text()), name, str(file_of(folder, slug)), lineterm="")


def _lines(text: str) -> list[str]:
    """Not `splitlines`, to which more than a line break is one."""
    return text.split("\n")[:-1]


def _told_of(step: Step) -> str:
    return " (its unpublished draft is replaced)" if step.undoes_a_draft else ""


def _summary(steps: Sequence[Step]) -> str:
    counts = Counter(step.action for step in steps)
    told = (
        f"{count}{' ' if action is Action.UNCHANGED else ' to '}{action}"
        for action in Action
        if (count := counts[action])
    )
    return ", ".join(told) or "no configs"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
