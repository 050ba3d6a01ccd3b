"""An identity provider's tokens through the real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.gateway.identity import AUDIENCE, ISSUER, rsa_pair, running_identity

from .processes import post, running_server, server_environment
from .site import readiness, ready
from .test_keys import VIEWER


async def test_a_token_of_the_identity_provider(tmp_path: Path) -> None:
    pair = rsa_pair()
    async with running_identity(pair) as identity:
        environment = server_environment(
            tmp_path, None, JWT_JWKS_URL=identity.url, JWT_ISSUER=ISSUER, JWT_AUDIENCE=AUDIENCE
        )

        def look() -> None:
            with running_server(environment) as server:
                ready(server)
                answer = post(server, pair.token(scope="completions:read"), VIEWER)
                assert answer["data"]["viewer"]["subject"] == "ada"
                refused = post(server, rsa_pair().token(), VIEWER)
                assert refused["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
                developer = (tmp_path / "token").read_text()
                assert "errors" not in post(server, developer, VIEWER), "the developer's own serves too"

        await asyncio.to_thread(look)
        identity.status = 500

        def look_again() -> None:
            with running_server(environment) as server:
                assert readiness(server) == (503, "missing: the identity provider (HTTP 500)\n")

        await asyncio.to_thread(look_again)
