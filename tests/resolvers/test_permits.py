"""Who is limited to models or configs uses no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from providers.types import Message, Role
from resolvers.completions import complete, stream
from resolvers.embeddings import embed
from resolvers.errors import ForbiddenError
from resolvers.permits import check_config_permitted
from resolvers.principal import Limits
from resolvers.types import CompleteCommand, ConfigCall, ConfigRef, EmbedCommand, Target

from .scene import ACME, ALPHA, BETA, Scene, texts

ASKED = CompleteCommand(ALPHA, (Message(Role.USER, "hi"),))


@pytest.mark.parametrize(
    ("limits", "command"),
    [
        (Limits(models=("alpha/a-1",)), ASKED),
        (Limits(models=("beta/x", "alpha/*")), replace(ASKED, target=Target("alpha", "whatever"))),
        (Limits(models=("alpha/*", "beta/b-1")), replace(ASKED, fallbacks=(BETA,))),
        (Limits(configs=("greet",)), replace(ASKED, config="greet", provider_options={"alpha": {"x": 1}})),
        (Limits(configs=("greet",), models=("alpha/a-1",)), replace(ASKED, config="greet")),
        (Limits(networks=("10.0.0.0/8",)), replace(ASKED, provider_options={"alpha": {"x": 1}})),
    ],
)
async def test_permitted(scene: Scene, limits: Limits, command: CompleteCommand) -> None:
    scene.alpha.will(texts("ok"))
    answer = await complete(scene.services, replace(ACME, limits=limits), command)
    assert answer.content == "ok"


@pytest.mark.parametrize(
    ("limits", "command", "told"),
    [
        (Limits(models=("alpha/a-1",)), replace(ASKED, target=BETA), "'beta/b-1'"),
        (Limits(models=("alpha/a-1",)), replace(ASKED, fallbacks=(BETA,)), "'beta/b-1'"),
        (Limits(models=("alpha/a",)), ASKED, "'alpha/a-1'"),
        (Limits(models=("alp/*",)), ASKED, "'alpha/a-1'"),
        (Limits(models=()), ASKED, "'alpha/a-1'"),
        (Limits(models=("alpha/a-1",)), replace(ASKED, provider_options={"alpha": {"models": []}}), "providerOptions"),
        (Limits(configs=("greet",)), ASKED, "limited to configs"),
        (Limits(configs=("greet",), models=("beta/*",)), replace(ASKED, config="greet"), "'alpha/a-1'"),
    ],
)
async def test_forbidden_before_anything_is_sent(
    scene: Scene, limits: Limits, command: CompleteCommand, told: str
) -> None:
    limited = replace(ACME, limits=limits)
    with pytest.raises(ForbiddenError, match=told):
        await complete(scene.services, limited, command)
    with pytest.raises(ForbiddenError, match=told):
        await anext(stream(scene.services, limited, command))
    assert scene.alpha.calls == scene.beta.calls == []


async def test_embeddings_too(scene: Scene) -> None:
    limited = replace(ACME, limits=Limits(models=("beta/*",)))
    with pytest.raises(ForbiddenError):
        await embed(scene.services, limited, EmbedCommand(ALPHA, ("text",)))
    with pytest.raises(ForbiddenError):
        await embed(scene.services, replace(ACME, limits=Limits(configs=("a",))), EmbedCommand(ALPHA, ("text",)))


CALL = ConfigCall(ConfigRef("greet"))


@pytest.mark.parametrize(
    ("limits", "call", "told"),
    [
        (Limits(configs=("other",)), CALL, "the config 'greet'"),
        (Limits(configs=()), CALL, "the config 'greet'"),
        (Limits(configs=("greet",)), replace(CALL, target=BETA), "leave out model"),
        (Limits(configs=("greet",)), replace(CALL, fallbacks=(BETA,)), "leave out model"),
        (Limits(configs=("greet",)), replace(CALL, provider_options={"alpha": {"x": 1}}), "providerOptions"),
        (Limits(models=("alpha/*",)), replace(CALL, provider_options={"alpha": {"x": 1}}), "providerOptions"),
        (Limits(configs=("greet",)), CALL, None),
        (Limits(configs=("greet",), models=("beta/*",)), replace(CALL, target=BETA), None),
        (Limits(networks=("10.0.0.0/8",)), replace(CALL, target=BETA, provider_options={"alpha": {"x": 1}}), None),
        (Limits(), replace(CALL, fallbacks=()), None),
    ],
)
def test_configs(limits: Limits, call: ConfigCall, told: str | None) -> None:
    limited = replace(ACME, limits=limits)
    if told is None:
        check_config_permitted(limited, call)
    else:
        with pytest.raises(ForbiddenError, match=told):
            check_config_permitted(limited, call)
