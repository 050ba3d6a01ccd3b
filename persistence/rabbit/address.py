"""What names a broker. Apart from the client, so that a start without one does not load it."""

from __future__ import annotations

from yarl import URL

HEARTBEAT_S = 10


def address(url: str) -> URL:
    """`url` as https://www.rabbitmq.com/docs/uri-spec has it. Raises ValueError, which tells nothing of the address
    itself."""
    try:
        parsed = URL(url)
        known = parsed.scheme in ("amqp", "amqps") and bool(parsed.host) and parsed.explicit_port != 0
    except ValueError:
        known = False
    if not known:
        raise ValueError("an address is written amqp://user:password@host:5672/virtual-host, or amqps:// with TLS")
    return parsed if "heartbeat" in parsed.query else parsed.update_query(heartbeat=str(HEARTBEAT_S))
