"""What a webhook may be. Each refusal names the field."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from providers.addresses import OutboundAddresses

from .errors import BadUserInputError
from .webhook_events import EventType

MAX_URL_LENGTH = 2_048
MAX_DESCRIPTION_LENGTH = 200

_URL = ("input", "url")


def check_url(url: str, outbound: OutboundAddresses) -> None:
    """Where its name leads is looked at when it is called, each time. Raises BadUserInputError."""
    if len(url) > MAX_URL_LENGTH or not url.isprintable() or any(each.isspace() or each == "\\" for each in url):
        raise BadUserInputError(f"a url has at most {MAX_URL_LENGTH} characters, none of them a space", path=_URL)
    parts = _split(url)
    if parts.scheme == "http" and not outbound.networks:
        raise BadUserInputError("a url begins with https://", path=_URL)
    if parts.username is not None or parts.password is not None:
        raise BadUserInputError("a url has no user and no password: events are signed", path=_URL)
    if parts.fragment:
        raise BadUserInputError("a url has no fragment", path=_URL)
    if not outbound.may_name(parts.hostname or ""):
        raise BadUserInputError("a url leads to a public address", path=_URL)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")
    except ValueError:  # a port that is none, a bracket that is not closed, a label that is too long
        usable = False
    if not usable:
        raise BadUserInputError("a url begins with https:// and a host", path=_URL)
    return parts


def origin_of(url: str) -> str:
    """What of it may be shown to whom it is not: the rest may hold a token."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def checked_events(events: Sequence[str]) -> tuple[str, ...]:
    """Raises BadUserInputError."""
    if not events:
        raise BadUserInputError("say at least one type of event", path=("input", "events"))
    return tuple(each.value for each in EventType if each.value in events)


def check_description(description: str | None) -> None:
    """Raises BadUserInputError."""
    if description is not None and (len(description) > MAX_DESCRIPTION_LENGTH or not description.isprintable()):
        raise BadUserInputError(
            f"a description has at most {MAX_DESCRIPTION_LENGTH} printable characters", path=("input", "description")
        )
