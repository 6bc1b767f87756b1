"""The site's navigation, its links, and what pages would fetch; `python -m docs.site` builds it."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs import site

INDEX = """# Home

## Use

| page | what |
|---|---|
| [A](a.md) | a, and [c](c.md) |
| [B](b.md#part) | b |

```sh
## not a heading
```

## More

| page | what |
|---|---|
| [A again](a.md#other) | a |
| [C](sub/c.md) | c |
"""


def test_navigation_is_the_first_links_of_the_rows_of_the_index():
    assert site.groups(INDEX) == {"Use": ["a.md", "b.md"], "More": ["sub/c.md"]}


def test_every_page_is_in_the_navigation():
    known, base = site.pages(), site.repository()
    index = (site.ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    named = site.groups(site.relinked(index, "docs/README.md", known, base))
    rows = [row for group in named.values() for row in group]
    assert {*rows, site.HOME} == set(known.values()) and len(rows) == len(set(rows))


def test_a_page_without_a_row_is_an_error():
    with pytest.raises(site.SiteError, match=r"no row for lost\.md"):
        site._navigation({"Use": ["a.md"]}, {"a.md", "lost.md"})


@pytest.mark.parametrize(
    "link, base, becomes",
    [
        ("[a](choosing.md#with-data)", None, "[a](choosing.md#with-data)"),
        ("[a](search.md)", None, "[a](searching.md)"),
        ("[a](../CONTRIBUTING.md#rules)", None, "[a](contributing.md#rules)"),
        ("[a](../README.md#speed)", None, "[a](README.md)"),
        ("[a](tutorials/first.md)", None, "[a](tutorials/first.md)"),
        ("![a](figures/alpha.svg)", None, "![a](figures/alpha.svg)"),
        ("[`a`](../checks.py)", None, "`a`"),
        ("[`a`](../checks.py)", "https://x.org/r", "[`a`](https://x.org/r/checks.py)"),
        ("[a](../nothere.py)", None, "[a](../nothere.py)"),
        ("[a](https://arxiv.org)", None, "[a](https://arxiv.org)"),
        ("```\n[a](../checks.py)\n```\n", None, "```\n[a](../checks.py)\n```\n"),
    ],
)
def test_links_lead_to_pages_or_the_repository(link, base, becomes):
    assert site.relinked(link, "docs/choosing.md", site.pages(), base) == becomes


def test_links_of_pages_in_folders_go_up():
    said = site.relinked("[a](../search.md)", "docs/tutorials/first.md", site.pages(), None)
    assert said == "[a](../searching.md)"
    said = site.relinked("[a](docs/recipe.md)", "CHANGELOG.md", site.pages(), None)
    assert said == "[a](recipe.md)"


@pytest.mark.parametrize(
    "text, fetches",
    [
        ('<script src="https://cdn.org/x.js"></script>', True),
        ('<script src="//cdn.org/x.js"></script>', True),
        ('<link rel="stylesheet" href="https://fonts.org/a.css">', True),
        ("@font-face{src:url(https://fonts.org/a.woff2)}", True),
        ('@import "https://x.org/a.css";', True),
        ('<img alt="a" src="https://x.org/a.png">', True),
        ('<script src="_static/x.js"></script>', False),
        ('<a href="https://arxiv.org/abs/2312.06795">the paper</a>', False),
    ],
)
def test_what_a_page_would_fetch_is_found(tmp_path: Path, text: str, fetches: bool):
    (tmp_path / ("a.css" if "url(" in text or "@import" in text else "a.html")).write_text(text)
    assert bool(site.fetched(tmp_path)) is fetches
