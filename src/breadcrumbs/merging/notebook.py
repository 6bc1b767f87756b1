"""What results look like in a notebook: tables of HTML, frames of pandas, a bar of progress."""

from __future__ import annotations

import functools
import html
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from breadcrumbs.errors import BreadcrumbsError, MissingExtraError, sentence

if TYPE_CHECKING:
    import pandas

P = ParamSpec("P")
R = TypeVar("R")
#: An option that `merge` has too, with what follows it: a text in quotes, or one of few words.
_OPTION = re.compile(
    r"--(extra|missing|rename|exclude|only|dtype|force|resume|strict|untie|only-changed"
    r'|allow-nonfinite)\b(?: ("[^"]+"|ignore|base|same|float32))?'
)
#: Rows of a table that are shown; the others are counted.
ROWS = 40
#: Seconds before a bar appears, and between two of its steps.
WAIT, STEP = 0.5, 0.2


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


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function whose errors note what the options that they name are called in Python."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except BreadcrumbsError as error:
            found = keywords(str(error))
            if found and not hasattr(error, "__notes__"):
                error.add_note(f"In Python: {', '.join(found)}.")
            raise

    return called


def keywords(text: str) -> list[str]:
    """Return the options of the command line in a message as keyword arguments.

    >>> keywords('Give --extra "a.*" or --force, or --rename "a=b" --rename "c=d".')
    ['extra="a.*"', 'force=True', 'rename=["a=b", "c=d"]']
    """
    found: dict[str, list[str]] = {}
    for name, value in _OPTION.findall(text):
        found.setdefault(name.replace("-", "_"), []).append(value.strip('"'))
    result = []
    for name, values in found.items():
        known = list(dict.fromkeys(f'"{value}"' for value in values if value))
        if not known:
            result.append(f"{name}=True")
        else:
            several = len(known) > 1 and name == "rename"
            result.append(f"{name}=[{', '.join(known)}]" if several else f"{name}={known[0]}")
    return result


def _text(value: Any) -> str:
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


@contextmanager
def progress(total: int, wanted: bool | None, doing: str) -> Iterator[Callable[[int], None]]:
    """Show a bar while bytes are done, of what takes longer than `WAIT` seconds.

    total: bytes of all. wanted: True shows it on a terminal too, None in notebooks alone, False
    nowhere. doing: one word for it. Yields what is to be called with bytes, from any thread.
    """
    if (wanted is None and not in_notebook()) or wanted is False:
        yield lambda nbytes: None
    elif in_notebook():
        with _Bar(total) as bar:
            yield bar.add
    else:
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task(doing, total=total)
            yield lambda nbytes: shown.advance(task, nbytes)


def in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this, which shows HTML."""
    found = sys.modules.get("IPython")
    shell = found.get_ipython() if found is not None else None
    return hasattr(shell, "kernel")


class _Bar:
    """IPython's bar, which needs no widgets: shown once, changed in place a few times a second."""

    def __init__(self, total: int):
        from IPython.display import ProgressBar

        self._bar: Any = ProgressBar(max(total, 1))
        self._done, self._shown, self._lock = 0, False, threading.Lock()
        self._next = time.monotonic() + WAIT

    def add(self, nbytes: int) -> None:
        """Note that so many more bytes are done."""
        with self._lock:
            self._done += nbytes
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + STEP
            if not self._shown:
                self._shown = True
                self._bar.display()
            self._bar.progress = min(self._done, self._bar.total)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._shown and error[0] is None:
            self._bar.progress = self._bar.total
