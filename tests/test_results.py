"""A benchmark's chapter of results.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks.results import write_chapter


def test_a_chapter_is_written_anew_and_the_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "results.md"
    for text in ("# One\n\nfirst\n\n## Part\n", "# Two\n\nfirst\n\n", "# One\n\nsecond", "# Three\n"):
        write_chapter(text, file)
    assert file.read_text() == "# One\n\nsecond\n\n# Two\n\nfirst\n\n# Three\n"
