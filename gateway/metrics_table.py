"""`docs/metrics.md`, from the catalogue: `python -m gateway.metrics_table` writes it."""

from __future__ import annotations

from pathlib import Path

from .metrics.catalogue import SECTIONS, Kind, Merge, Row, Section

PAGE = Path("docs/metrics.md")

_HEAD = """\
# Metrics

What `/metrics` answers on `INTERNAL_PORT` (a server's with `LOCAL` on `PORT`), in Prometheus' text or, where the
request asks for it, in OpenMetrics. Written from the code by `make schema`.

- Times are in seconds, sizes in bytes, money in USD. A histogram's name stands for `_bucket`, `_sum` and `_count`.
- Labels are bounded. `model` is a name that the price table lists, or one of the first hundred others that a vendor has
  answered for; all others are `other`. There is no label for organisations or callers: reports of usage tell of them.
- Several processes behind one port answer as one: counters and histograms are summed, those of ended processes too;
  a gauge's last column says how its values of the living ones are put together. They are at most 5 seconds old.
- A worker (`ai-middleware worker`) that works on batches has them all, its items being completions; one that does not
  has the sections that are marked so. With `LOCAL` it has no port for them.
"""

_MERGES = {
    Merge.SUM: "sum",
    Merge.MIN: "the least",
    Merge.MAX: "the greatest",
    Merge.LATEST: "the latest",
}


def metrics_page() -> str:
    return "\n".join([_HEAD, *map(_section, SECTIONS)])


def _section(section: Section) -> str:
    title = f"## {section.title}{' (workers too)' if section.worker else ''}"
    head = ["| name | type | labels | meaning | of several processes |", "|---|---|---|---|---|"]
    return "\n".join([title, "", *head, *map(_row, section.rows), ""])


def _row(row: Row) -> str:
    labels = ", ".join(f"`{label}`" for label in row.labels)
    merge = _MERGES[row.merge] if row.kind is Kind.GAUGE else "sum"
    buckets = f" Buckets: {', '.join(f'{bound:g}' for bound in row.buckets)}." if row.buckets else ""
    return f"| `{row.name}` | {row.kind.value} | {labels} | {row.text}{buckets} | {merge} |"


def main() -> None:
    PAGE.write_text(metrics_page())


if __name__ == "__main__":
    main()
