"""What the command line says on standard error."""

from __future__ import annotations

from typing import NoReturn

from rich.console import Console

errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def fail(message: str, *, code: int = 1) -> NoReturn:
    """Ends the process with one line."""
    complain(message)
    raise SystemExit(code)


def complain(message: str) -> None:
    errors.print(f"ai-middleware: {' '.join(message.splitlines())}", style="red")
