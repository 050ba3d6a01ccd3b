"""How the command line reaches a running server: the options that say where it is and who asks, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated
from urllib.parse import urlsplit

import typer

from providers.errors import ProviderError

from .app import PATH
from .client import ApiError
from .console import fail
from .keys import deployment_keys, developer_token
from .setting_values import is_plain, is_plain_address
from .settings import load_settings

UrlOption = Annotated[str | None, typer.Option(help=f"The server, or its {PATH}. Absent: this machine, at PORT.")]
TokenOption = Annotated[
    str | None, typer.Option(help="Absent: the developer's.", envvar="AI_MIDDLEWARE_TOKEN", show_envvar=True)
]


def access(url: str | None, token: str | None) -> tuple[str, str]:
    """Address and token, from the two options. Raises SettingsError; ends the process where an option is none."""
    settings = load_settings()
    address = url or f"http://127.0.0.1:{settings.PORT}"
    if url and not is_plain_address(url):
        fail(f"--url is not a plain http or https address such as http://127.0.0.1:8080{PATH}")
    if not urlsplit(address).path.strip("/"):
        address = address.rstrip("/") + PATH
    bearer = (token or "").strip() or developer_token(settings, deployment_keys(settings))
    if not is_plain(bearer):
        fail("--token has characters that no HTTP header may carry; `ai-middleware token` prints a token")
    return address, bearer


@contextmanager
def told_apart(address: str, *, code: int = 1) -> Iterator[None]:
    """Ends the process with one line, and `code`, where the server refuses or can't be reached."""
    try:
        yield
    except ApiError as error:
        fail(str(error), code=code)
    except ProviderError as error:
        if error.sent:
            fail(f"the answer from {address} did not come whole: {error.message}", code=code)
        fail(f"no server answers at {address} ({error.message}): `ai-middleware serve` starts one", code=code)
