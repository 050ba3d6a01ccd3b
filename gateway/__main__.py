"""`python -m gateway` is `ai-middleware`."""

from .cli import main

main()
