"""Pages as data, as files and as commands, without a browser."""

from __future__ import annotations

import json
import re
import sys
from html import unescape

import numpy as np
import pytest
from click.testing import CliRunner
from result_rows import row
from safetensors.numpy import save_file

from breadcrumbs.cli.group import main
from breadcrumbs.errors import MissingExtraError, OutputError
from breadcrumbs.evaluate.results import picture, sweeps, tables
from breadcrumbs.evaluate.results.results import Results
from breadcrumbs.evaluate.results.sweeps import Point
from breadcrumbs.merging import figures
from breadcrumbs.merging.looking import BINS, Look, TensorLook
from breadcrumbs.pages import charts, drawing, files, html, layers, theme
from breadcrumbs.pages.page import Page, Section, Table

LIMIT = 3_000_000
EVIL = '</script><script>document.title="x"</script><img src=http://x.test/a onerror=alert(1)>'


def some_page(label: str = "a") -> Page:
    matrix = [[1.0, 0.25], [0.25, 1.0]]
    figure = charts.matrix("cosine", label, label, (label, "b"), {"all": matrix}, value="cosine")
    table = Table((label, "n"), [(label, 3)], label)
    section = Section(label, label, [(label, label)], [figure], [table], label)
    return Page(label, "compare", label, [(label, label)], [section], [label], [label])


@pytest.fixture
def models(tmp_path) -> list[str]:
    rng = np.random.default_rng(0)
    base = {f"h.{i}.up.weight": rng.standard_normal((8, 8)).astype(np.float32) for i in range(3)}
    paths = []
    for name in ("base", "one", "two"):
        noise = {} if name == "base" else {n: rng.standard_normal((8, 8)) / 9 for n in base}
        save_file({n: np.float32(v + noise.get(n, 0)) for n, v in base.items()}, tmp_path / name)
        (tmp_path / name).rename(tmp_path / f"{name}.safetensors")
        paths.append(str(tmp_path / f"{name}.safetensors"))
    return paths


def run(*arguments: object, code: int = 0):
    ran = CliRunner().invoke(main, list(map(str, arguments)))
    assert ran.exit_code == code, ran.output
    return ran


def test_what_a_name_says_of_a_tensors_place():
    names = {
        "model.embed_tokens.weight": ("model.embed_tokens", None),
        "model.layers.3.mlp.up_proj.weight": ("mlp.up_proj", 3),
        "model.layers.10.mlp.up_proj.bias": ("mlp.up_proj", 10),
        "model.layers.3.experts.7.w1.weight": ("experts.*.w1", 3),
        "h.0.weight": ("weight", 0),
    }
    found = layers.places(names)
    for name, (kind, layer) in names.items():
        assert found[name].kind.endswith(kind) and found[name].layer == layer, name
    towers = ["text_model.encoder.layers.0.fc.weight", "vision_model.encoder.layers.0.fc.weight"]
    assert [p.kind for p in layers.places(towers).values()] == ["text fc", "vision fc"]
    assert [p.row for p in layers.places(towers).values()] == ["text 0", "vision 0"]
    many = [f"h.{i}.part.x{k}.weight" for i in range(2) for k in range(40)]
    assert {p.kind for p in layers.places(many).values()} == {"part"}
    numbers = layers.columns(layers.places(["h.10.w", "h.9.w", "norm"]).values())
    assert numbers == [layers.OUTSIDE, "9", "10"]


def test_a_page_is_one_small_file_that_names_no_other(tmp_path):
    files.write(some_page(), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert len(text.encode()) < LIMIT
    policy = unescape(re.search(r'Policy" content="(.*?)">', text)[1])
    assert "default-src 'none'" in policy and "eval" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 2 and all(html._digest(script) in policy for script in scripts)
    outside = text
    for script in scripts:
        outside = outside.replace(script, "")
    data = re.findall(r'<script type="application/json" class="spec">(.*?)</script>', text, re.S)
    assert json.loads(data[0])["$schema"].startswith("https://vega.github.io/schema")
    assert set(re.findall(r"\b(?:src|href)=[\"']?([^\s\"'#>]+)", outside)) == {"data:,"}
    assert "url(" not in outside and "@import" not in outside


def test_names_are_text_wherever_they_stand():
    text = html.to_html(some_page(EVIL))
    for part in ("<img", "</script><script>document", "onerror=alert(1)>"):
        assert part not in text.partition("<body")[2].replace(drawing.script(), "")
    assert html.to_html(some_page()).count("<script") == text.count("<script")
    assert "<script" not in drawing.svg(some_page(EVIL).figures["cosine"])


def test_a_page_takes_the_place_of_a_page_and_of_nothing_else(tmp_path, monkeypatch):
    page, place = some_page(), tmp_path / "page.html"
    files.write(page, place)
    files.write(page, place)
    for name in ("cosine.svg", "cosine.png"):
        files.write_all(page, None, [str(tmp_path / name)])
        files.write_all(page, None, [f"cosine={tmp_path / name}"])
    before = sorted(tmp_path.iterdir())
    for name in ("other.html", "other.svg", "other.png"):
        (tmp_path / name).write_text("<html>mine")
        with pytest.raises(OutputError, match="did not make it"):
            files.check(tmp_path / name, name[-5:] if name.endswith("html") else name[-4:])
        (tmp_path / name).unlink()
    with pytest.raises(OutputError, match=r"no figure 'cosin'.*'cosine'"):
        files.write_all(page, str(tmp_path / "new.html"), ["cosin.svg"])
    with pytest.raises(OutputError, match="there is no folder"):
        files.write(page, tmp_path / "nowhere" / "page.html")
    with pytest.raises(OutputError, match=r"end with \.html"):
        files.write(page, tmp_path / "page.txt")

    def fail(*_):
        raise MissingExtraError("gone")

    monkeypatch.setattr(drawing, "compiled", fail)
    with pytest.raises(MissingExtraError):
        files.write(page, tmp_path / "new.html")
    assert sorted(tmp_path.iterdir()) == before


def test_figures_are_drawn_without_a_browser():
    figure = some_page("movies").figures["cosine"]
    svg, png = drawing.svg(figure), drawing.png(figure)
    assert "movies" in svg and "0.25" in svg and "@" not in re.sub(r"<style.*?</style>", "", svg)
    assert png.startswith(b"\x89PNG") and len(png) < 200_000


def test_text_can_be_read_on_what_it_stands_on():
    def brightness(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for dark in (0, 1):
        paper = brightness(theme.COLOURS["paper"][dark])
        for name in ("ink", "muted", "accent", "warm", "line"):
            light, low = sorted([brightness(theme.COLOURS[name][dark]), paper], reverse=True)
            assert (light + 0.05) / (low + 0.05) >= 4.5, (name, dark)


def test_compare_and_merge_write_what_was_asked_for(models, tmp_path):
    out = {name: tmp_path / name for name in ("page.html", "cosine.svg", "x.png", "plan.html")}
    ran = run(
        *("compare", *models, "--transform", "breadcrumbs", "--layers", "--html", out["page.html"]),
        *("--svg", out["cosine.svg"], "--png", f"norms={out['x.png']}"),
    )
    assert re.search(r"^ 2 +64 ", ran.stdout, re.M) and "conflicts" in ran.stdout
    assert "upper cut" in out["page.html"].read_text()
    assert out["cosine.svg"].read_text().startswith("<svg")
    assert out["x.png"].read_bytes().startswith(b"\x89PNG")
    run("merge", *models, "--dry-run", "--html", out["plan.html"], "-m", "ties")
    assert "nothing was written" in out["plan.html"].read_text()
    merged, page = tmp_path / "merged", tmp_path / "merged.html"
    ran = run("merge", *models, "-o", merged, "--html", page, "--json")
    assert json.loads(ran.stdout)["merged"] == 3 and "breadcrumbs merge" in page.read_text()
    run("inspect", merged, "--html", page)
    assert "What it was merged from" in page.read_text()


def test_a_page_that_cannot_be_written_is_refused_before_the_merge(models, tmp_path, monkeypatch):
    (tmp_path / "mine.html").write_text("mine")
    ran = run("merge", *models, "-o", tmp_path / "m", "--html", tmp_path / "mine.html", code=1)
    assert "did not make it" in ran.output and not (tmp_path / "m").exists()
    ran = run("merge", *models, "-o", tmp_path / "m", "--svg", "a.png", code=2)
    assert "end with .svg" in ran.output
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    ran = run("merge", *models, "-o", tmp_path / "m", "--html", tmp_path / "p.html", code=1)
    assert 'pip install ".[report]"' in ran.output and not (tmp_path / "m").exists()


def test_what_can_never_have_rows_is_not_served(models, tmp_path):
    for path in (models[0], tmp_path):
        ran = run("report", path, "--serve", code=1)
        assert "is not a file of results" in ran.output


def test_the_page_of_a_store_has_its_history(models, tmp_path):
    store, page = tmp_path / "store", tmp_path / "page.html"
    run("store", "init", store, "--base", models[0])
    for name, model in (("cats", models[1]), ("dogs", models[2])):
        run("store", "add", store, name, model)
    run("store", "remove", store, "cats", "-m", "not <needed>")
    run("store", "revert", store, "1")
    run("store", "log", store, "--html", page)
    from breadcrumbs.store import Store
    from breadcrumbs.store import picture as history

    with Store.open(store) as opened:
        made = history.of(opened)
    held = [(row[0], row[1]) for row in made.figures["tasks"].table.rows]
    assert held == [("1", "cats"), ("2", "cats"), ("2", "dogs"), ("3", "dogs"), ("4", "cats")]
    assert [y for _, _, y in made.figures["growth"].table.rows] == [0, 1, 2, 1, 1]
    (table,) = made.sections[-1].tables
    assert table.rows[2][-1] == "not <needed>" and table.rows[3][3] == "to revision 1"


def scored() -> list:
    """Return rows of a sweep of two methods over alpha, on two tasks."""
    rows = [row("b", task, [1] * 2 + [0] * 8, label="base") for task in ("spam", "news")]
    for i, (method, alpha) in enumerate((m, a) for m in ("ties", "sum") for a in (0.5, 1, 1.5)):
        recipe = json.dumps({"base": "b", "method": method, "parameters": {"alpha": alpha}})
        for task, right in (("spam", 4 + i), ("news", 9 - i)):
            answers = [1] * right + [0] * (10 - right)
            more = {"label": f"{method} of 2", "recipe": recipe}
            rows.append(row(f"{i + 1:x}", task, answers, **more))
    return rows


def test_the_page_of_results_draws_sweeps_and_what_none_beats(tmp_path):
    table = tables.of(scored())
    made = picture.of(table)
    assert set(made.figures) >= {"means", "tasks", "alpha-curve", "pareto", "history", "sweep"}
    curve = made.figures["alpha-curve"].table.rows
    assert [(name, x) for name, x, _ in curve[:3]] == [("ties", 0.5), ("ties", 1), ("ties", 1.5)]
    assert curve[0][2] == pytest.approx((0.4 + 0.9) / 2)
    names = [line[0] for line in made.sections[0].tables[0].rows]
    assert len(set(names)) == len(names) == 7
    points = sweeps.points(table)
    assert [p.settings["alpha"] for p in points] == [0.5, 1, 1.5] * 2
    assert points[0].values == {"spam": 0.4, "news": 0.9}
    with Results(tmp_path / "r.sqlite") as results:
        results.add(*scored())
    page = tmp_path / "p.html"
    run("results", tmp_path / "r.sqlite", "--html", page)
    run("report", tmp_path / "r.sqlite", "--split", "test", "--html", page)
    run("results", tmp_path / "r.sqlite", "--compare", "base", "1111", "--html", page)
    assert "difference of accuracy" in page.read_text()
    assert "give --html FILE, or --serve" in run("report", tmp_path / "r.sqlite", code=2).output


def test_of_many_points_those_are_marked_that_none_beats_in_both():
    rng = np.random.default_rng(0)
    values = rng.random((60, 2)).round(1)
    rows = [(str(i), {"a": x, "b": 1.0}, y) for i, (x, y) in enumerate(values.tolist())]
    table = sweeps.pareto(rows, "mean").table.rows
    for i, (x, y) in enumerate(values.tolist()):
        beaten = any((a >= x and b > y) or (a > x and b >= y) for a, b in values.tolist())
        assert table[i][3] == ("no" if beaten else "yes")


def test_parallel_coordinates_place_numbers_and_words():
    settings = [
        {"method": "ties", "alpha": a, "kind": k} for a, k in ((1, "x"), (3, "y"), (2, "x"))
    ]
    points = [Point(str(i), s, i / 10, {"a": i, "b": i}) for i, s in enumerate(settings)]
    figure = sweeps.sweep(points, "score")
    records = figure.spec["layer"][0]["data"]["values"]
    at = {(r["label"], r["axis"]): r["at"] for r in records}
    assert [at[str(i), "alpha"] for i in range(3)] == [0, 1, 0.5]
    assert at["0", "kind"] == at["2", "kind"] != at["1", "kind"]
    assert [at[str(i), "score"] for i in range(3)] == [0, 0.5, 1]
    assert figure.table.rows[0] == ("2", 2, "x", 0.2)


def test_the_page_of_many_layers_stays_small():
    rng = np.random.default_rng(0)
    tensors = []
    for name in (f"h.{i}.self_attn.part_{k}.weight" for i in range(100) for k in range(12)):
        tables = [np.abs(rng.standard_normal((2, 3, 3))) for _ in range(3)]
        tensors.append(TensorLook(name, 9, 9, 0.123456, *tables, *rng.random((3, 3))))
    look = Look(("one", "two", "three"), tuple(tensors), {"": rng.random((3, 2, BINS))}, True)
    page = Page("many", "merge", "", sections=figures.sections(look))
    assert len(html.to_html(page).encode()) < LIMIT
    cells = page.figures["norms"].spec["data"]["values"]
    assert {cell["model"] for cell in cells} == {"all models"}


def test_next_to_nothing_looks_like_it():
    near = {"now": [[1.0, 0.01], [0.01, 1.0]]}
    colours = charts.matrix("c", "C", "", ["a", "b"], near, value="cosine").spec["layer"][0]
    assert colours["encoding"]["color"]["scale"]["domain"] == [-0.2, 0.2]
    cells = [{"x": "0", "y": "w", "value": 0.51}]
    table = Table(("x",), [])
    axes = {"x": ("x", ["0"]), "y": ("y", ["w"]), "value": ("v", ".0%")}
    spec = charts.heat("h", "H", "", cells, **axes, tips=[], table=table, middle=0.5).spec
    assert spec["encoding"]["color"]["scale"]["domain"] == [0.4, 0.6]
