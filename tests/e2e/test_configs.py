"""Configs through the real server: completions by config, and the command line's files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app

from .documents import COMPLETE
from .processes import Server, Vendor, post
from .test_cancellation import own_model
from .test_cli import command
from .test_many import MANY
from .test_providers import stream, text_of

CREATE = "mutation ($input: CreateConfigInput!) { createConfig(input: $input) { revision } }"
PUBLISH = "mutation ($input: PublishConfigInput!) { publishConfig(input: $input) { publishedVersion } }"
BOOKED = """
{ completions { nodes { config configVersion streamed labels { name value } usage { outputTokens } } } }
"""
FILE = """\
model: scripted/echo
description: Greets
prompt: |
  You speak {{language}}.
  Be brief.
variables:
  - name: language
    default: English
labels:
  team: a
"""


def publish(server: Server, token: str, slug: str, draft: dict[str, Any]) -> None:
    answer = post(server, token, CREATE, {"input": {"slug": slug, "draft": draft}})
    assert answer["data"]["createConfig"] == {"revision": 1}
    answer = post(server, token, PUBLISH, {"input": {"by": {"slug": slug}, "expectedRevision": 1}})
    assert answer["data"]["publishConfig"] == {"publishedVersion": 1}


@pytest.fixture
def greeting(server: Server, token: str, organisation: str) -> dict[str, Any]:
    """A completion by a config of the test's own."""
    draft = {
        "model": f"openai/{own_model('openai', organisation)}",
        "messages": [{"role": "USER", "content": "Hello {{name}} [[tokens={{tokens}}]]"}],
        "variables": [{"name": "name"}, {"name": "tokens", "default": 3}],
        "labels": [{"name": "team", "value": "a"}],
    }
    publish(server, token, "greet", draft)
    return {"config": {"slug": "greet", "variables": {"name": "Ada"}}}


async def test_a_completion_and_a_stream_by_config(
    server: Server, vendor: Vendor, token: str, organisation: str, greeting: dict[str, Any]
) -> None:
    answer = post(server, token, COMPLETE, {"input": greeting})["data"]["complete"]
    assert answer["content"] == "token0 token1 token2"
    longer = {"config": {"slug": "greet", "version": 1, "variables": {"name": "Ada", "tokens": 5}}}
    events = await stream(server, token, longer)
    assert text_of(events) == "token0 token1 token2 token3 token4"
    assert events[-1]["__typename"] == "CompletionFinished"
    assert vendor.tally("openai", own_model("openai", organisation))["calls"] == 2
    nodes = post(server, token, BOOKED)["data"]["completions"]["nodes"]
    assert nodes == [
        {
            "config": "greet",
            "configVersion": 1,
            "streamed": streamed,
            "labels": [{"name": "team", "value": "a"}],
            "usage": {"outputTokens": tokens},
        }
        for streamed, tokens in ((True, 5), (False, 3))
    ]


def test_several_at_once(server: Server, token: str, greeting: dict[str, Any]) -> None:
    outcomes = post(server, token, MANY, {"inputs": [greeting, {"config": {"slug": "greet"}}, greeting]})
    first, second, third = outcomes["data"]["completeMany"]
    assert first == third == {"content": "token0 token1 token2", "provider": "openai"}
    assert (second["code"], second["path"]) == ("BAD_USER_INPUT", ["inputs", 1, "config", "variables", "name"])


def test_configs_are_an_organisations_own(server: Server, greeting: dict[str, Any]) -> None:
    answer = post(server, server.token("somebody-else"), COMPLETE, {"input": greeting})
    assert answer["errors"][0]["extensions"]["code"] == "NOT_FOUND"


class Repository:
    """A folder of files, and the command line on it: within this process, which is quicker."""

    def __init__(self, server: Server, token: str, folder: Path) -> None:
        self.folder = folder
        self._options = ("--url", server.url, "--token", token)

    def write(self, slug: str, text: str) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / f"{slug}.yaml").write_text(text)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def run(self, verb: str, *options: str) -> Result:
        return CliRunner().invoke(app, self.arguments(verb, *options), env={"DATA_DIR": str(self.folder)})

    def arguments(self, verb: str, *options: str) -> list[str]:
        return ["config", verb, str(self.folder), *options, *self._options]


@pytest.fixture
def repository(server: Server, token: str, tmp_path: Path) -> Repository:
    return Repository(server, token, tmp_path / "configs")


def test_files_to_the_server_and_back(server: Server, token: str, repository: Repository) -> None:
    repository.write("greet", FILE)
    planned = repository.run("import")
    assert (planned.exit_code, planned.stdout) == (
        0,
        "create     greet\n1 to create; nothing was changed: --apply does it\n",
    )
    differing = repository.run("diff")
    assert (differing.exit_code, differing.stdout.splitlines()[3]) == (1, "+model: scripted/echo")
    applied = repository.run("import", "--apply")
    assert (applied.exit_code, applied.stdout) == (0, "create     greet\n1 to create; done\n")
    again = repository.run("import", "--apply")
    assert (again.exit_code, again.stdout) == (0, "unchanged  greet\n1 unchanged; done\n")
    same = repository.run("diff")
    assert (same.exit_code, same.stdout, same.stderr) == (0, "", "")
    asked = {"config": {"slug": "greet"}, "messages": [{"role": "USER", "content": "Hello"}]}
    assert post(server, token, COMPLETE, {"input": asked})["data"]["complete"]["content"] == "You said: Hello"
    exported = repository.run("export")
    assert exported.stdout == f"{repository.folder}: 1 config, 0 files written\n"
    assert repository.files() == {"greet.yaml": FILE.encode()}


def test_as_a_process_of_its_own(repository: Repository) -> None:
    repository.write("greet", FILE)
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(repository.folder)}
    done = command(*repository.arguments("diff"), environment=environment)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (1, FILE.count("\n") + 3, "")
    assert repository.run("import", "--apply").exit_code == 0
    done = command(*repository.arguments("diff"), environment=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_the_server_has_is_exported_and_can_be_pruned(server: Server, token: str, repository: Repository) -> None:
    publish(server, token, "kept", {"model": "scripted/echo"})
    publish(server, token, "gone", {"model": "scripted/echo"})
    assert post(server, token, CREATE, {"input": {"slug": "new", "draft": {"model": "scripted/echo"}}})["data"]
    exported = repository.run("export")
    assert exported.stdout == f"{repository.folder}: 3 configs, 3 files written\n"
    assert exported.stderr == "new: was never published; an import publishes it\n"
    assert set(repository.files()) == {"kept.yaml", "gone.yaml", "new.yaml"}
    (repository.folder / "gone.yaml").unlink()
    assert "Only on the server: gone\n" in repository.run("diff").stdout
    assert "no file    gone (left alone; --prune archives it)\n" in repository.run("import", "--apply").stdout
    pruned = repository.run("import", "--apply", "--prune")
    assert pruned.stdout == "archive    gone\nunchanged  kept\nunchanged  new\n1 to archive, 2 unchanged; done\n"
    repository.write("gone", "model: scripted/echo\n")
    archived = repository.run("diff")
    assert (archived.exit_code, archived.stdout) == (1, "Archived on the server: gone\n")
    (repository.folder / "kept.yaml").unlink()
    repository.write("gone", "model: scripted/other\n")
    assert repository.run("export").stderr == f"{repository.folder / 'gone.yaml'}: no config in use is named so; " + (
        "the file is left as it is\n"
    )


def test_a_difference_is_shown_line_by_line(repository: Repository) -> None:
    repository.write("greet", FILE)
    assert repository.run("import", "--apply").exit_code == 0
    repository.write("greet", FILE.replace("Be brief.", "Be kind."))
    shown = repository.run("diff")
    assert shown.exit_code == 1
    lines = shown.stdout.splitlines()
    assert lines[:2] == ["--- server, version 1", f"+++ {repository.folder / 'greet.yaml'}"]
    assert [line for line in lines[2:] if line[0] in "+-"] == ["-  Be brief.", "+  Be kind."]


def test_nothing_is_done_where_a_file_is_wrong(server: Server, token: str, repository: Repository) -> None:
    repository.write("bad", "model: scripted/echo\ntemprature: 1\n")
    repository.write("worse", "model: [\n")
    repository.write("good", FILE)
    for verb, options, code in (("import", ("--apply",), 1), ("diff", (), 2)):
        refused = repository.run(verb, *options)
        assert (refused.exit_code, refused.stdout) == (code, "")
        first, second = refused.stderr.splitlines()
        assert first == f"ai-middleware: {repository.folder / 'bad.yaml'}: temprature: unknown key"
        assert second.startswith(f"ai-middleware: {repository.folder / 'worse.yaml'}: line 2: ")
    assert post(server, token, "{ configs { nodes { slug } } }")["data"]["configs"]["nodes"] == []


def test_what_the_server_refuses_is_told_by_name_and_place(repository: Repository) -> None:
    repository.write("bad", 'model: scripted/echo\nprompt: "{{x}}"\n')
    repository.write("good", FILE)
    for options in ((), ("--apply",)):
        refused = repository.run("import", *options)
        assert refused.exit_code == 1
        assert refused.stdout.endswith("2 to create; nothing was changed: 1 file can't be published\n")
        assert refused.stderr.startswith("ai-middleware: bad: can't be published: ")
        assert refused.stderr.endswith("(prompt)\n")
    assert "create     good\n" in repository.run("import").stdout


def test_an_empty_folder_prunes_nothing(server: Server, token: str, repository: Repository) -> None:
    publish(server, token, "kept", {"model": "scripted/echo"})
    repository.folder.mkdir(exist_ok=True)
    refused = repository.run("import", "--apply", "--prune")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "--prune would archive every config" in refused.stderr
    assert repository.run("export").stdout == f"{repository.folder}: 1 config, 1 file written\n"


def test_a_token_without_the_scope_reads_nothing(server: Server, repository: Repository) -> None:
    other = Repository(server, server.token("nobody", scopes=[]), repository.folder)
    for verb, code in (("export", 1), ("diff", 2)):
        repository.write("greet", FILE)
        refused = other.run(verb)
        assert (refused.exit_code, refused.stdout) == (code, "")
        assert refused.stderr == "ai-middleware: FORBIDDEN: this token lacks the scope 'configs:read'\n"
