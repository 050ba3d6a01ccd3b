"""The command `ai-middleware`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer

from graph.schema import build_schema
from persistence.migrations.sqlite import migrate as migrate_database
from persistence.ports import StoreUnavailableError
from persistence.timescale.policies import Policies
from resolvers.principal import Scope

from . import client
from .auth import mint
from .backup_commands import app as backup_app
from .batch_commands import app as batch_app
from .calling import TokenOption, UrlOption, access, told_apart
from .config_commands import app as config_app
from .console import errors, fail
from .dev_commands import app as dev_app
from .document_commands import app as document_app
from .keys import deployment_keys, developer_token
from .queue_commands import app as queue_app
from .rotate_command import rotate
from .serving import check_processes
from .serving import serve as run_server
from .settings import Settings, SettingsError, load_settings
from .stores import DATABASE_FILE, MONGODB, TIMESCALE
from .usage_commands import app as usage_app
from .worker import run_worker

DAY_H = 24.0
TEN_YEARS_H = 10 * 365 * 24

app = typer.Typer(
    name="ai-middleware",
    help="One GraphQL API in front of every large-language-model provider.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(config_app)
app.add_typer(usage_app)
app.add_typer(queue_app)
app.add_typer(backup_app)
app.add_typer(document_app)
app.add_typer(batch_app)
app.add_typer(dev_app)


def main() -> None:
    """The console script. What the operator can mend is one line on standard error and exit code 2."""
    try:
        app()
    except SettingsError as error:
        fail(str(error), code=2)


@app.command()
def serve() -> None:
    """Starts the server, its stores and settings taken from the environment."""
    settings = load_settings()
    check_processes(settings)
    _migrate(settings)
    raise typer.Exit(run_server(settings))


@app.command()
def worker() -> None:
    """Starts a worker, which takes jobs from RabbitMQ; several may run, beside the servers."""
    run_worker(load_settings())


@app.command()
def migrate() -> None:
    """Brings the stores to the schema that this version needs. Safe to repeat, and from two places at once."""
    settings = load_settings()
    _migrate(settings)
    typer.echo(f"{settings.DATA_DIR / DATABASE_FILE} is up to date")
    if settings.MONGODB_CONNECTION_URI is not None:
        _migrate_mongo(settings.MONGODB_CONNECTION_URI.get_secret_value(), settings.MONGODB_TLS_CA_FILE)
        typer.echo(f"{MONGODB} is up to date")
    if settings.TIMESCALE_SERVICE_URL is not None:
        _migrate_timescale(settings.TIMESCALE_SERVICE_URL.get_secret_value(), settings.ledger_policies())
        typer.echo(f"{TIMESCALE} is up to date")


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
        fail(f"{path} can't be written: {error.strerror}")


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
        fail("a new token needs --subject and --organisation both; --scope and --hours are for a new one")
    scopes = scope or list(Scope)
    lifetime_s = (DAY_H if hours is None else hours) * 3600
    token = mint(
        keys.signing_secret,
        subject=subject,
        organisation=organisation,
        scopes=scopes,
        lifetime_s=lifetime_s,
        rules=settings.claim_rules(),
    )
    typer.echo(token)


@app.command(name="rotate-keys")
def rotate_keys() -> None:
    """Seals organisations' provider keys and webhooks' secrets anew, by the first ENCRYPTION_KEY. Afterwards the former
    ones, which stand behind it, may go, once the `enc:v1:…` settings and the API keys made under them are renewed too.
    """
    keys, webhooks = rotate(load_settings())
    typer.echo(
        f"sealed anew: {keys.resealed} of {keys.seen} provider keys, {webhooks.resealed} of {webhooks.seen} webhooks"
    )
    for organisation, name in (*keys.unreadable, *webhooks.unreadable):
        typer.echo(f"opens with none of ENCRYPTION_KEY: {organisation} at {name}", err=True)
    if keys.unreadable or webhooks.unreadable:
        raise typer.Exit(1)


@app.command()
def encrypt() -> None:
    """Reads a secret from standard input and prints it sealed, for use as a setting: `enc:v1:…`."""
    sealer = deployment_keys(load_settings()).sealer()
    secret = (typer.prompt("Secret", hide_input=True) if sys.stdin.isatty() else sys.stdin.read()).strip()
    if not secret:
        fail("there is nothing to seal: give the secret on standard input")
    typer.echo(sealer.seal(secret))


@app.command()
def complete(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    model: Annotated[str, typer.Option(help="provider/model.")] = "scripted/echo",
    stream: Annotated[bool, typer.Option("--stream", help="Print tokens as they come.")] = False,
    system: Annotated[str | None, typer.Option(help="Instructions for the model.")] = None,
    fallback: Annotated[list[str] | None, typer.Option(help="Tried when the model fails. May be repeated.")] = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Asks a running server: a client of its GraphQL API."""
    address, bearer = access(url, token)
    messages = [{"role": "SYSTEM", "content": system}] if system else []
    asked: dict[str, Any] = {"model": model, "messages": [*messages, {"role": "USER", "content": prompt}]}
    if fallback:
        asked["fallbacks"] = [{"model": target} for target in fallback]
    with told_apart(address):
        asyncio.run(_print_stream(address, bearer, asked) if stream else _print_answer(address, bearer, asked))


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


def _migrate_mongo(uri: str, ca_file: Path | None) -> None:
    from persistence.migrations.mongo import migrate as migrate_mongo  # here: it loads the driver

    try:
        asyncio.run(migrate_mongo(uri, ca_file=ca_file))
    except (StoreUnavailableError, ValueError) as error:
        raise SettingsError(f"MONGODB_CONNECTION_URI: {error}") from None


def _migrate_timescale(url: str, policies: Policies) -> None:
    from persistence.migrations.timescale import migrate as migrate_timescale  # here: it loads SQLAlchemy

    try:
        asyncio.run(migrate_timescale(url, policies))
    except StoreUnavailableError as error:
        raise SettingsError(f"TIMESCALE_SERVICE_URL: {error}") from None
