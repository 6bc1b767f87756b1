"""Build the pages of the documentation as a web site: `python -m docs.site -o site`.

Pages stay as they are read in the repository: a copy of them is built, with links to what is in no
page (sources, results) led to the repository, where its address is known, and else left as text.
Navigation is the tables of docs/README.md: a page is in it where it has a row. Whatever is not
right is an error: a link or an anchor that leads nowhere, a page without a row, a page that loads
anything from another place than the site. Sphinx with MyST and Furo builds without a network.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
HOME = "README.md"
#: What becomes a page besides those of docs/, and its place among them.
BESIDES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "experiments/README.md": "experiments.md",
}
#: Pages of which Sphinx has one by the name.
RENAMED = {"search.md": "searching.md"}
#: Read for the repository alone, where the site has a page of its own for it.
INSTEAD = {"README.md": HOME}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```\n?", re.M | re.S)
#: What a browser would fetch; links that a reader may follow are no such thing.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc(?:set)?=["'](?:https?:)?//[^"']*"""
    r"""|<link\b(?![^>]*rel=["']canonical)[^>]*\bhref=["'](?:https?:)?//[^"']*"""
    r"""|url\(\s*["']?(?:https?:)?//[^)]*|@import\s+["'](?:https?:)?//[^"']*"""
    r"""|\b(?:fetch|importScripts|import)\(\s*["'`](?:https?:)?//[^"'`]*"""
)


class SiteError(Exception):
    """The site is not right; says what is wrong, a line each."""


def pages() -> dict[str, str]:
    """Return all pages: by their path in the repository, that in the site."""
    own = sorted(path.relative_to(HERE).as_posix() for path in HERE.rglob("*.md"))
    return {f"docs/{name}": RENAMED.get(name, name) for name in own} | BESIDES


def groups(index: str) -> dict[str, list[str]]:
    """Return the groups of the index: by heading, the pages linked first in each row of its table.

    A page that is in several rows is in the first of them.
    """
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for section in re.split(r"^## ", FENCE.sub("", index), flags=re.M)[1:]:
        heading, _, text = section.partition("\n")
        for link in re.findall(r"^\| \[[^\]]*\]\(([^)#\s]+)", text, re.M):
            if link not in seen:
                found.setdefault(heading.strip(), []).append(link)
                seen.add(link)
    return found


def relinked(text: str, path: str, known: dict[str, str], repository: str | None) -> str:
    """Return a page with links as the site needs them.

    path: the page's, in the repository. known: `pages`. repository: the address under which a
    reader finds files of it, or None.
    """
    here = os.path.dirname(known[path])

    def link(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        name, hash_, anchor = target.partition("#")
        if not name or re.match(r"[a-z]+:", name):
            return match[0]
        within = os.path.normpath(os.path.join(os.path.dirname(path), name))
        place = known.get(f"docs/{INSTEAD[within]}" if within in INSTEAD else within)
        if place is None and within.startswith("docs/") and not name.endswith(".md"):
            place = within.removeprefix("docs/")
        if place is not None:
            if within in INSTEAD:
                hash_ = anchor = ""
            return f"{picture}[{words}]({os.path.relpath(place, here or '.')}{hash_}{anchor})"
        if not (ROOT / within).exists():
            return match[0]  # Sphinx says that it leads nowhere
        return f"[{words}]({repository}/{within})" if repository else words

    done, last = [], 0
    for fence in FENCE.finditer(text):
        done += [LINK.sub(link, text[last : fence.start()]), fence[0]]
        last = fence.end()
    return "".join([*done, LINK.sub(link, text[last:])])


def repository() -> str | None:
    """Return where a reader finds a file of the repository, of pyproject.toml's URLs; or None."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    url = project.get("urls", {}).get("Repository")
    return url and f"{url.rstrip('/')}/blob/main"


def stage(folder: Path) -> None:
    """Write the sources of the site into a folder."""
    known, base = pages(), repository()
    for path, place in known.items():
        text = relinked((ROOT / path).read_text(encoding="utf-8"), path, known, base)
        if place == HOME:
            text += _navigation(groups(text), set(known.values()) - {HOME})
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text, encoding="utf-8")
    others = shutil.ignore_patterns("*.md", "*.py", "__pycache__")
    shutil.copytree(HERE, folder, ignore=others, dirs_exist_ok=True)


def _navigation(found: dict[str, list[str]], places: set[str]) -> str:
    named = {page for rows in found.values() for page in rows}
    if places - named:
        missing = ", ".join(sorted(places - named))
        raise SiteError(f"docs/README.md has no row for {missing}")
    trees = []
    for heading, rows in found.items():
        lines = "\n".join(row for row in rows)
        trees.append(f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{lines}\n```\n")
    return "".join(trees)


def build(output: Path) -> None:
    """Build the site into a folder; SiteError where something is not right."""
    from sphinx.application import Sphinx
    from sphinx.errors import SphinxError
    from sphinx.util.docutils import docutils_namespace

    from breadcrumbs.version import __version__

    settings = {
        "project": "Breadcrumbs",
        "copyright": "the Breadcrumbs developers",
        "release": __version__,
        "root_doc": HOME.removesuffix(".md"),
        "extensions": ["myst_parser"],
        "myst_heading_anchors": 4,
        "nitpicky": True,
        "html_theme": "furo",
        "html_title": f"Breadcrumbs {__version__}",
        "html_copy_source": False,
        "html_use_index": False,
        "html_show_sourcelink": False,
        "html_show_sphinx": False,
        "highlight_language": "text",
    }
    told = io.StringIO()
    with tempfile.TemporaryDirectory() as name, docutils_namespace():
        source = Path(name) / "source"
        source.mkdir()
        stage(source)
        try:
            app = Sphinx(source, None, output, Path(name) / "trees", "html", settings, None, told)
            app.build(force_all=True)
        except SphinxError as error:
            raise SiteError(str(error)) from error
        wrong = re.sub(r"\x1b\[[0-9;]*m", "", told.getvalue()).replace(f"{source}/", "docs/")
    if wrong.strip():
        raise SiteError(wrong.strip())
    shutil.copyfile(output / HOME.replace(".md", ".html"), output / "index.html")
    from_elsewhere = fetched(output)
    if from_elsewhere:
        raise SiteError("\n".join(from_elsewhere))


def fetched(site: Path) -> list[str]:
    """Return what pages, styles and scripts would fetch from another place than the site."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css", ".js", ".svg"):
            text = path.read_text(encoding="utf-8")
            found += [f"{path.relative_to(site)} fetches {m[0]}" for m in FETCHED.finditer(text)]
    return found


def main() -> int:
    """Build the site; return 1 and print what is wrong, if anything is."""
    parser = argparse.ArgumentParser(prog="python -m docs.site", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="a folder to keep the site in")
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        try:
            build(output or Path(folder))
        except SiteError as error:
            print(error)
            return 1
    print(f"{len(pages())} pages, all links lead somewhere")
    return 0


if __name__ == "__main__":
    sys.exit(main())
