"""What results look like in a notebook: tables of HTML, frames of pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from breadcrumbs.errors import MissingExtraError, sentence

if TYPE_CHECKING:
    import pandas

#: Rows of a table that are shown; the others are counted.
ROWS = 40


def table(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> str:
    """Return HTML of a title, facts in a line each, and rows, whose keys are the columns.

    Only the first `ROWS` rows are in it. Everything is escaped, and nothing is loaded.
    """
    parts = [f"<div><strong>{_text(title)}</strong>"]
    if facts:
        said = (f"{_text(key)}: {_text(value)}" for key, value in facts.items() if value != "")
        parts.append(f"<br>{'<br>'.join(said)}")
    if rows:
        head = "".join(f"<th>{_text(key)}</th>" for key in rows[0])
        body = "".join(
            f"<tr>{''.join(f'<td>{_text(value)}</td>' for value in row.values())}</tr>"
            for row in rows[:ROWS]
        )
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    if len(rows) > ROWS:
        parts.append(f"and {len(rows) - ROWS:,} more<br>")
    parts += [f"<em>note:</em> {_text(sentence(line))}<br>" for line in notes]
    parts += [f"<em>warning:</em> {_text(sentence(line))}<br>" for line in warnings]
    return "".join([*parts, "</div>"])


def _text(value: Any) -> str:
    import html

    return html.escape(number(value))


def number(value: Any) -> str:
    """Return a value as it is shown: numbers with four digits that count, whole ones grouped."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def frame(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Return rows of plain data as a frame of pandas; MissingExtraError where there is none."""
    try:
        import pandas
    except ImportError:
        raise MissingExtraError(
            "to_frame() needs pandas, which is not installed. Run `pip install pandas`."
        ) from None
    return pandas.DataFrame(list(rows))
