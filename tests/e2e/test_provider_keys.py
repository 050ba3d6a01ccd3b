"""Organisations' own provider keys through the real server, and over two of them."""

from __future__ import annotations

import base64
import secrets
import time
from pathlib import Path
from typing import Any

from .documents import COMPLETE
from .processes import Server, Vendor, post, running_server, server_environment
from .site import Site
from .test_cli import command

SET = """mutation ($input: SetProviderKeyInput!) {
  setProviderKey(input: $input) { provider hint createdBy }
}"""
DELETE = "mutation ($input: DeleteProviderKeyInput!) { deleteProviderKey(input: $input) { provider } }"
KEYS = "{ providerKeys { provider hint } }"
HEALTH = "{ providers { name keys { id state } } }"


def key() -> str:
    return f"sk-canary-{secrets.token_hex(12)}"


def ask(server: Server, organisation: str, document: str, asked: dict[str, Any] | None = None) -> dict[str, Any]:
    return post(server, server.token(organisation), document, None if asked is None else {"input": asked})


def complete(server: Server, organisation: str) -> dict[str, Any]:
    asked = {"model": "openai/gpt-4o-mini", "messages": [{"role": "USER", "content": "hello"}]}
    return ask(server, organisation, COMPLETE, asked)


def test_a_key_is_set_used_and_told_to_nobody(vendor: Vendor, tmp_path: Path) -> None:
    """Nor is it in the log, in a database's file, or anything else that the server writes."""
    secret = key()
    with running_server(server_environment(tmp_path, vendor)) as server:
        done = ask(server, "acme", SET, {"provider": "openai", "key": secret})
        assert done["data"]["setProviderKey"] == {"provider": "openai", "hint": secret[-4:], "createdBy": "tester"}
        assert "errors" not in complete(server, "acme")
        assert ask(server, "acme", KEYS)["data"]["providerKeys"] == [{"provider": "openai", "hint": secret[-4:]}]
        assert ask(server, "globex", KEYS)["data"]["providerKeys"] == []
        wrong = ask(server, "acme", SET, {"provider": "openai", "key": "too short"})
        assert wrong["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not any(secret.encode() in content for content in written)


def test_the_other_server_goes_by_it_within_a_second(site: Site) -> None:
    """It is seen by the one that was set last; a key that is deleted there is deleted here."""
    one, other = site.servers
    organisation = f"org-{secrets.token_hex(4)}"
    for server in site.servers:
        assert "errors" not in complete(server, organisation)
    ask(one, organisation, SET, {"provider": "openai", "key": key()})
    ask(one, organisation, SET, {"provider": "groq", "key": key()})
    assert [each["provider"] for each in ask(other, organisation, KEYS)["data"]["providerKeys"]] == ["groq", "openai"]
    assert "errors" not in ask(other, organisation, DELETE, {"provider": "groq"})
    gone = ask(one, organisation, DELETE, {"provider": "groq"})
    assert gone["errors"][0]["extensions"]["code"] == "NOT_FOUND"
    assert "errors" not in complete(other, organisation)


def test_a_new_master_key_takes_the_old_one_s_place(vendor: Vendor, tmp_path: Path) -> None:
    environment = server_environment(tmp_path, vendor)
    old, new = environment["ENCRYPTION_KEY"], base64.b64encode(secrets.token_bytes(32)).decode()
    with running_server(environment) as server:
        assert "errors" not in ask(server, "acme", SET, {"provider": "openai", "key": key()})
    environment["ENCRYPTION_KEY"] = f"{new},{old}"
    with running_server(environment) as server:
        assert "errors" not in complete(server, "acme")
        rotated = command("rotate-keys", environment=environment)
        assert (rotated.returncode, rotated.stdout) == (0, "sealed anew: 1 of 1 provider keys, 0 of 0 webhooks\n")
        again = command("rotate-keys", environment=environment)
        assert again.stdout == "sealed anew: 0 of 1 provider keys, 0 of 0 webhooks\n"
    environment["ENCRYPTION_KEY"] = new
    with running_server(environment) as server:
        assert "errors" not in complete(server, "acme")
    environment["ENCRYPTION_KEY"] = old
    lost = command("rotate-keys", environment=environment)
    assert (lost.returncode, "acme at openai" in lost.stderr) == (1, True)
    with running_server(environment) as server:
        began = time.monotonic()
        refused = complete(server, "acme")
        assert refused["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT", "and by nobody else's key"
        assert time.monotonic() - began < 5
        assert "a provider key doesn't open" in server.log()
