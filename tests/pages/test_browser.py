"""Pages in a real Chromium: they draw, say nothing on the console, and ask for nothing."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import chromium
import numpy as np
import pytest
from result_rows import row

import breadcrumbs
from breadcrumbs.cli import report
from breadcrumbs.evaluate.results import picture, tables
from breadcrumbs.evaluate.results.results import Results
from breadcrumbs.pages import files
from breadcrumbs.pages.serving import Server

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="there is no chromium here")

#: The colours of the marks of a chart, as it is drawn.
FILLS = """[...document.querySelectorAll("#cosine svg [fill]")].map(e => e.getAttribute("fill"))"""
EVIL = '<script>document.title="stolen"</script><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = chromium.Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Return the page of a comparison of three models of four layers, one of an evil name."""
    rng = np.random.default_rng(0)
    kinds = ("attn.q", "attn.v", "mlp.up", "mlp.down")
    base = {
        f"h.{i}.{kind}.weight": rng.standard_normal((16, 16)) for i in range(4) for kind in kinds
    }
    base["embed.weight"] = rng.standard_normal((40, 16))
    models = [{n: v + rng.standard_normal(v.shape) / 20 for n, v in base.items()} for _ in range(3)]
    names = ["movies", "spam", EVIL]
    found = breadcrumbs.compare(base, models, names=names, transform="breadcrumbs", look=True)
    path = tmp_path_factory.mktemp("page") / "page.html"
    assert found.to_html(path) is None  # no page in the cell of a notebook
    return path


def quiet(browser: chromium.Browser) -> bool:
    """Return whether nothing was complained of, and nothing asked for but the page itself."""
    errors, asked = browser.errors[:], [r for r in browser.requests if not r.startswith("data:")]
    browser.errors.clear()
    browser.requests.clear()
    assert not errors
    return all(url.startswith("file:") and url.endswith("page.html") for url in asked)


@pytest.mark.parametrize(("width", "dark"), [(1000, False), (1000, True), (390, False)])
def test_a_page_draws_every_figure_within_its_width(browser, page, tmp_path, width, dark):
    browser.open(page.as_uri(), width=width, dark=dark)
    figures = browser.value("document.querySelectorAll('figure').length")
    assert figures == browser.value("document.querySelectorAll('figure svg').length") == 5
    marks = """[...document.querySelectorAll("figure")].map(
        f => f.querySelectorAll(".mark-rect path, .mark-line path, .mark-symbol path").length)"""
    assert min(browser.value(marks)) > 2
    assert browser.value("document.documentElement.scrollWidth") <= width
    wide = "Math.max(...[...document.querySelectorAll('figure svg')].map(s => s.clientWidth))"
    assert browser.value(wide) <= width - 24
    assert browser.value("document.title") != "stolen"
    assert browser.value("document.images.length") == 0
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 24, 31)" if dark else "rgb(255, 255, 255)")
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 50_000
    assert quiet(browser)


def test_what_is_chosen_is_shown_and_colours_follow_the_theme(browser, page):
    browser.open(page.as_uri())
    texts = """[...document.querySelectorAll("#cosine .mark-text text")].map(e => e.textContent)"""
    before, light = browser.value(texts), browser.value(FILLS)
    choose = """(() => { const s = document.querySelector("#cosine select");
        s.value = "after cutting"; s.dispatchEvent(new Event("change")); })()"""
    browser.value(choose)
    browser.wait(
        f"JSON.stringify({texts}) !== {json.dumps(json.dumps(before, separators=(',', ':')))}"
    )
    theme = {"name": "prefers-color-scheme", "value": "dark"}
    after = browser.value(texts)
    browser.ask("Emulation.setEmulatedMedia", features=[theme])
    browser.wait(
        f"JSON.stringify({FILLS}) !== {json.dumps(json.dumps(light, separators=(',', ':')))}"
    )
    browser.wait("document.querySelectorAll('#cosine .mark-text text').length > 3")
    assert browser.value(texts) == after
    assert browser.ask("Page.printToPDF")["data"].startswith("JVBER")
    assert quiet(browser)


def test_a_page_can_be_used_without_a_mouse_or_eyes(browser, page):
    browser.open(page.as_uri())
    problems = """(() => {
      const found = [];
      const levels = [...document.querySelectorAll("h1, h2, h3")].map(h => +h.tagName[1]);
      if (levels[0] !== 1 || levels.some((l, i) => i && l > levels[i - 1] + 1))
        found.push("headings");
      for (const f of document.querySelectorAll("figure")) {
        const chart = f.querySelector("[role=img]"), table = f.querySelector("details table");
        for (const key of ["aria-labelledby", "aria-describedby"])
          if (!document.getElementById(chart.getAttribute(key))?.textContent.trim())
            found.push(f.id + key);
        if (!table || table.rows.length < 2) found.push(f.id + " table");
        for (const s of f.querySelectorAll("select"))
          if (!s.labels.length) found.push(f.id + " label");
      }
      const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
      if (new Set(ids).size !== ids.length) found.push("ids");
      for (const a of document.querySelectorAll("a[href^='#']"))
        if (!document.querySelector(a.getAttribute("href"))) found.push(a.href);
      return found; })()"""
    assert browser.value(problems) == []
    for kind in ("rawKeyDown", "keyUp"):
        browser.ask("Input.dispatchKeyEvent", type=kind, key="Tab", windowsVirtualKeyCode=9)
    assert browser.value("document.activeElement.className") == "skip"


def test_a_live_page_shows_new_rows_and_answers_this_machine_alone(browser, tmp_path):
    file = str(tmp_path / "results.sqlite")
    with Results(file) as results:
        server = Server(lambda: picture.live(file, split="test"), lambda: report.stamp(file))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            assert server.url.startswith("http://127.0.0.1:")
            browser.open(server.url)
            assert "Waiting" in browser.value("document.querySelector('h1').textContent")
            results.add(*(row(m, task) for m in ("b", "1") for task in ("spam", "news")))
            browser.wait("document.querySelectorAll('figure svg').length === 2")
            results.add(*(row("2", task) for task in ("spam", "news")))
            browser.wait("document.querySelectorAll('main table tbody')[0].rows.length === 3")
            assert browser.value("document.querySelector('.live').textContent") == "live"
            assert _status(server.url, "evil.test") == 403
            assert not browser.errors
        finally:
            server.close()
            thread.join(10)
        browser.wait("document.querySelector('.live').textContent === 'no longer live'")
    browser.errors.clear()
    browser.requests.clear()


def _status(url: str, host: str) -> int:
    import http.client

    address = url.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("GET", "/", headers={"Host": host})
    return connection.getresponse().status


def test_every_kind_of_figure_draws(browser, tmp_path):
    rows = []
    for i, (method, alpha) in enumerate((m, a) for m in ("ties", "sum") for a in (0.5, 1, 1.5)):
        recipe = json.dumps({"base": "b", "method": method, "parameters": {"alpha": alpha}})
        for task, right in (("spam", 4 + i), ("news", 9 - i)):
            answers = [1] * right + [0] * (10 - right)
            rows.append(row(f"{i + 1:x}", task, answers, label=f"{method} of 2", recipe=recipe))
    made = picture.of(tables.of(rows))
    files.write(made, tmp_path / "page.html")
    browser.open((tmp_path / "page.html").as_uri())
    drawn = browser.value("[...document.querySelectorAll('figure:has(svg)')].map(f => f.id)")
    assert drawn == ["means", "tasks", "history", "alpha-curve", "sweep", "pareto"]
    assert quiet(browser)
