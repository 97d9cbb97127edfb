"""The tables of `fsmount stats --by` and `--top`, in words, for JSON and as a chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fsmount.cli.common.chart import Series, bar_chart
from fsmount.cli.common.output import counted, printable, size
from fsmount.store.retention.growth import Expensive, Forecast, Growth, Unit

_MONTH_DAYS = 30.44


def as_json(found: Growth, unit: Unit) -> dict[str, Any]:
    """Return the figures for JSON; sizes in bytes."""
    rows = [
        {
            unit.value: row.label,
            "files": row.files,
            "pictures": row.pictures,
            "bytes": row.bytes,
            "stored_bytes": row.stored,
            "ratio": round(row.ratio, 2),
            **({} if row.new is None else {"new_screens": round(row.new, 3)}),
        }
        for row in found.rows
    ]
    return {
        "by": unit.value,
        "rows": rows,
        "forecast": None if found.forecast is None else found.forecast._asdict(),
        "top_pictures": [_expensive(each) for each in found.files],
        "top_folders": [_expensive(each) for each in found.folders],
    }


def _expensive(found: Expensive) -> dict[str, Any]:
    return {"path": found.path, "stored_bytes": found.stored, "bytes": found.size}


def lines(found: Growth, unit: Unit | None) -> Iterator[str]:
    """Yield the figures in words. No table of rows without a unit."""
    if unit is not None:
        has_new = any(row.new is not None for row in found.rows)
        heads = [unit.value, "pictures", "other", "bytes", "stored", "ratio"]
        table = [
            [
                printable(row.label) or ".",
                str(row.pictures),
                str(row.files - row.pictures),
                size(row.bytes),
                size(row.stored),
                f"{row.ratio:.1f}",
                *([f"{row.new or 0:.1f}"] if has_new else []),
            ]
            for row in found.rows
        ]
        yield ""
        yield from _table([*heads, "new screens"] if has_new else heads, table)
        if found.forecast is not None:
            yield _in_words(found.forecast)
    for title, part in (("pictures", found.files), ("folders", found.folders)):
        if part:
            yield ""
            yield f"the most expensive {title}:"
            rows = [
                [size(each.stored), size(each.size), printable(each.path) or "."] for each in part
            ]
            yield from _table(["stored", "bytes", "path"], rows, left=2)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 0) -> Iterator[str]:
    """Yield aligned lines. Column `left` stands at its left edge, the others at their right."""
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    for row in (heads, *rows):
        cells = [
            cell.ljust(width) if at == left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _in_words(found: Forecast) -> str:
    """Return a forecast as a line."""
    month = found.stored_per_day * _MONTH_DAYS
    text = (
        f"forecast: {size(month)} and {found.pictures_per_day * _MONTH_DAYS:.0f} pictures a month,"
        f" as in the last {counted(found.days, 'day')} with pictures"
    )
    if found.full_in_days is None or found.full_in_days > 100 * 365:
        return text
    days = found.full_in_days
    when = f"{days:.0f} days" if days < 60 else f"{days / _MONTH_DAYS:.0f} months"
    return f"{text}; {size(found.free)} are free, enough for about {when}"


def as_chart(found: Growth, unit: Unit, title: str) -> str:
    """Return the rows as an SVG file."""
    panels = [
        Series("bytes in the store", [float(row.stored) for row in found.rows], size),
        Series("pictures", [float(row.pictures) for row in found.rows], lambda n: f"{n:.0f}"),
    ]
    if any(row.new is not None for row in found.rows):
        new = [row.new or 0.0 for row in found.rows]
        panels.append(Series("new screens", new, lambda n: f"{n:.1f}"))
    return bar_chart(title, [row.label or "." for row in found.rows], panels)
