"""The command `ai-middleware`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from graph.schema import build_schema
from persistence.migrations.sqlite import migrate as migrate_database
from persistence.ports import StoreUnavailableError
from providers.errors import ProviderError
from resolvers.principal import Scope

from . import client
from .app import PATH
from .auth import mint
from .keys import deployment_keys, developer_token
from .runtime import DATABASE_FILE
from .server import serve as run_server
from .settings import Settings, SettingsError, is_plain, is_plain_address, load_settings

DAY_H = 24.0
TEN_YEARS_H = 10 * 365 * 24

app = typer.Typer(
    name="ai-middleware",
    help="One GraphQL API in front of every large-language-model provider.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def main() -> None:
    """The console script. What the operator can mend is one line on standard error and exit code 2."""
    try:
        app()
    except SettingsError as error:
        _fail(str(error), code=2)


@app.command()
def serve() -> None:
    """Starts the server, its stores and settings taken from the environment."""
    settings = load_settings()
    _migrate(settings)
    raise typer.Exit(run_server(settings))


@app.command()
def migrate() -> None:
    """Brings the stores to the schema that this version needs. Safe to repeat, and from two places at once."""
    settings = load_settings()
    _migrate(settings)
    typer.echo(f"{settings.DATA_DIR / DATABASE_FILE} is up to date")


@app.command()
def schema(
    path: Annotated[Path, typer.Argument(help="The file to write; `-` prints instead.")] = Path("schema.graphql"),
) -> None:
    """Writes the GraphQL schema (SDL)."""
    text = build_schema().as_str() + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        return
    try:
        path.write_text(text)
    except OSError as error:
        _fail(f"{path} can't be written: {error.strerror}")


@app.command()
def token(
    subject: Annotated[str | None, typer.Option(help="Who the token is for.")] = None,
    organisation: Annotated[str | None, typer.Option(help="The organisation that it acts in.")] = None,
    scope: Annotated[list[Scope] | None, typer.Option(help="May be given several times. Absent: all scopes.")] = None,
    hours: Annotated[
        float | None, typer.Option(min=0.01, max=TEN_YEARS_H, help="How long it serves. Absent: a day.")
    ] = None,
) -> None:
    """Prints a token and nothing else: the developer's, or, with --subject and --organisation, a new one."""
    settings = load_settings()
    keys = deployment_keys(settings)
    if subject is None and organisation is None and hours is None and not scope:
        typer.echo(developer_token(settings, keys))
        return
    if not subject or not organisation:
        _fail("a new token needs --subject and --organisation both; --scope and --hours are for a new one")
    scopes = scope or list(Scope)
    lifetime_s = (DAY_H if hours is None else hours) * 3600
    typer.echo(
        mint(keys.signing_secret, subject=subject, organisation=organisation, scopes=scopes, lifetime_s=lifetime_s)
    )


@app.command()
def encrypt() -> None:
    """Reads a secret from standard input and prints it sealed, for use as a setting: `enc:v1:…`."""
    sealer = deployment_keys(load_settings()).sealer()
    secret = (typer.prompt("Secret", hide_input=True) if sys.stdin.isatty() else sys.stdin.read()).strip()
    if not secret:
        _fail("there is nothing to seal: give the secret on standard input")
    typer.echo(sealer.seal(secret))


@app.command()
def complete(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    model: Annotated[str, typer.Option(help="provider/model.")] = "scripted/echo",
    stream: Annotated[bool, typer.Option("--stream", help="Print tokens as they come.")] = False,
    system: Annotated[str | None, typer.Option(help="Instructions for the model.")] = None,
    fallback: Annotated[list[str] | None, typer.Option(help="Tried when the model fails. May be repeated.")] = None,
    url: Annotated[str | None, typer.Option(help="The API. Absent: this machine, at PORT.")] = None,
    token: Annotated[
        str | None, typer.Option(help="Absent: the developer's.", envvar="AI_MIDDLEWARE_TOKEN", show_envvar=True)
    ] = None,
) -> None:
    """Asks a running server: a client of its GraphQL API."""
    settings = load_settings()
    address = url or f"http://127.0.0.1:{settings.PORT}{PATH}"
    if url and not is_plain_address(url):
        _fail(f"--url is not a plain http or https address such as http://127.0.0.1:8080{PATH}")
    bearer = (token or "").strip() or developer_token(settings, deployment_keys(settings))
    if not is_plain(bearer):
        _fail("--token has characters that no HTTP header may carry; `ai-middleware token` prints a token")
    messages = [{"role": "SYSTEM", "content": system}] if system else []
    asked: dict[str, Any] = {"model": model, "messages": [*messages, {"role": "USER", "content": prompt}]}
    if fallback:
        asked["fallbacks"] = [{"model": target} for target in fallback]
    try:
        asyncio.run(_print_stream(address, bearer, asked) if stream else _print_answer(address, bearer, asked))
    except client.ApiError as error:
        _fail(str(error))
    except ProviderError as error:
        if error.sent:
            _fail(f"the answer from {address} did not come whole: {error.message}")
        _fail(f"no server answers at {address} ({error.message}): `ai-middleware serve` starts one")


async def _print_answer(url: str, token: str, asked: dict[str, Any]) -> None:
    answer = await client.complete(url, token, asked)
    sys.stdout.write(f"{answer['content'] or ''}\n")
    _print_summary(answer)


async def _print_stream(url: str, token: str, asked: dict[str, Any]) -> None:
    finished: Any = None
    printing = False
    try:
        async with aclosing(client.stream(url, token, asked)) as events:
            async for event in events:
                match event["__typename"]:
                    case "TextDelta":
                        printing = True
                        sys.stdout.write(event["text"])
                        sys.stdout.flush()
                    case "ProviderSwitched":
                        errors.print(f"{event['errorCode']}: on to {event['provider']}/{event['model']}", style="dim")
                    case "CompletionFailed":
                        raise client.ApiError(f"{event['code']}: {event['message']}")
                    case "CompletionFinished":
                        finished = event["completion"]
    finally:
        if printing:
            sys.stdout.write("\n")
            sys.stdout.flush()
    if finished:
        _print_summary(finished)


def _print_summary(answer: Any) -> None:
    usage = answer["usage"]
    cost = "cost unknown" if usage["cost"] is None else f"${usage['cost']}"
    errors.print(
        f"{answer['provider']}/{answer['model']} · {usage['inputTokens']} tokens in, "
        f"{usage['outputTokens']} out · {cost} · {answer['latencyMs']} ms",
        style="dim",
    )


def _migrate(settings: Settings) -> None:
    try:
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        migrate_database(settings.DATA_DIR / DATABASE_FILE)
    except (OSError, StoreUnavailableError) as error:
        raise SettingsError(f"DATA_DIR: {error}") from None


def _fail(message: str, *, code: int = 1) -> NoReturn:
    errors.print(f"ai-middleware: {' '.join(message.splitlines())}", style="red")
    raise SystemExit(code)
