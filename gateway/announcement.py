"""What the server tells the person who started it."""

from __future__ import annotations

import json
import shlex

from providers.registry import ProviderRow

from . import graphiql
from .app import PATH
from .declared_providers import provider_rows
from .keys import deployment_keys, developer_token
from .settings import Environment, Settings
from .vendors import vendors

SCRIPTED = "scripted"
SCRIPTED_EXAMPLE = "echo"


def announcement(settings: Settings, port: int) -> str:
    """What a person needs next. The token is shown where it was made for that: in LOCAL."""
    host = "localhost" if settings.HOST in ("127.0.0.1", "0.0.0.0", "::") else settings.HOST  # noqa: S104  # compared
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}{PATH}"
    if settings.ENVIRONMENT is Environment.PRODUCTION:
        return f"AI Middleware listens on {url}\n"
    keys = deployment_keys(settings)
    rows = provider_rows(settings)
    ready = list(vendors(settings, keys, rows))
    token = developer_token(settings, keys)
    missing = [row.name for row in rows if row.base_url and row.name not in ready]
    return "\n".join(
        [
            f"AI Middleware listens on {url}",
            "",
            f"  GraphiQL          {_page_address(url, token)}",
            f"  Developer token   {token}",
            f"  Providers ready   {', '.join(_label(name) for name in ready)}",
            f"  Without a key     {', '.join(missing) or 'none'}",
            "",
            "Try it:",
            "",
            _curl(url, token, next((row for row in rows if row.example and row.name in ready), None)),
            "",
            "",
        ]
    )


def _label(name: str) -> str:
    return f"{name} (a development fake, offline)" if name == SCRIPTED else name


def _page_address(url: str, token: str) -> str:
    """The built page takes the token from the fragment, which a browser sends to nobody, and drops it there."""
    if graphiql.is_built():
        return f"{url}#token={token}"
    return f"{url}   (Node did not build its page: Strawberry's loads scripts from a CDN)"


def _curl(url: str, token: str, row: ProviderRow | None) -> str:
    model = f"{SCRIPTED}/{SCRIPTED_EXAMPLE}" if row is None else f"{row.name}/{row.example}"
    query = (
        "mutation($input: CompleteInput!) { complete(input: $input) "
        "{ content provider model usage { inputTokens outputTokens cost } } }"
    )
    message = {"role": "USER", "content": "Say hello in one sentence."}
    body = {"query": query, "variables": {"input": {"model": model, "messages": [message]}}}
    return (
        f"curl -sS {shlex.quote(url)} -H 'content-type: application/json' -H 'authorization: Bearer {token}' "
        f"-d {shlex.quote(json.dumps(body))}"
    )
