"""Pictures: in folders, in columns of paths, in arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_tasks import pairs, png, refused, task, write

from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate.data.task import SPLITS


def test_pictures_in_folders_of_classes(tmp_path: Path):
    for label, red in (("dark", 0), ("light", 200)):
        (tmp_path / "a" / label).mkdir(parents=True)
        for i in range(20):
            (tmp_path / "a" / label / f"{i}.PNG").write_bytes(png((red + i, 0, 0)))
        (tmp_path / "a" / label / "notes.txt").write_text("left alone")
    found = task(tmp_path, data="a")
    assert [len(found.rows(split)) for split in SPLITS] == [24, 6, 10]
    for split in SPLITS:
        for picture, label in pairs(found.rows(split), found.labels):
            assert (label == "light") == (picture.getpixel((0, 0))[0] >= 200)
    part = found.rows("train").inputs[2:4]
    assert len(part) == 2 and part[0] == found.rows("train").inputs[2]


def test_pictures_in_folders_of_splits(tmp_path: Path):
    for split, n in (("train", 10), ("valid", 2), ("test", 3)):
        for label in "ab":
            (tmp_path / "a" / split / label).mkdir(parents=True)
            for i in range(n):
                (tmp_path / "a" / split / label / f"{i}.png").write_bytes(png((i, ord(label), n)))
    assert [len(task(tmp_path, data="a").rows(split)) for split in SPLITS] == [20, 4, 6]
    (tmp_path / "b").mkdir()
    refused("b: has no folders", tmp_path, data="b")


def test_a_column_of_paths_of_pictures(tmp_path: Path):
    for i in range(20):
        (tmp_path / "t" / "p").mkdir(parents=True, exist_ok=True)
        (tmp_path / "t" / "p" / f"{i}.png").write_bytes(png((i, 0, 0)))
    rows = [{"image": f"p/{i}.png", "label": "ab"[i % 2]} for i in range(20)]
    write(tmp_path / "t" / "a.csv", rows)
    found = task(tmp_path, data="t/a.csv", image="image")
    for picture, label in pairs(found.rows("train"), found.labels):
        assert "ab"[picture.getpixel((0, 0))[0] % 2] == label
    (tmp_path / "t" / "p" / "7.png").unlink()
    refused(
        "a.csv, line 9: .*7.png: cannot be read: No such file",
        tmp_path,
        data="t/a.csv",
        image="image",
    )


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path):
    for label in "ab":
        (tmp_path / "a" / label).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "a" / label / f"{i}.png").write_bytes(png((i, ord(label), 0)))
    (tmp_path / "a" / "a" / "3.png").write_bytes(png((3, 0, 0))[:45])
    found = task(tmp_path, data="a", splits={"train": {"count": 18}, "validation": 1, "test": 1})
    with pytest.raises(SuiteError, match=r"a/a/3.png: this picture cannot be read") as error:
        for split in SPLITS:
            list(found.rows(split).inputs)
    assert "\n" not in str(error.value)
    (tmp_path / "a" / "a" / "3.png").unlink()
    (tmp_path / "a" / "a" / "3.png").symlink_to(tmp_path / "gone.png")
    found = task(tmp_path, data="a", splits={"train": {"count": 18}, "validation": 1, "test": 1})
    with pytest.raises(SuiteError, match=r"a/a/3.png: cannot be read: No such file"):
        for split in SPLITS:
            list(found.rows(split).inputs)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_pictures_of_any_mode_come_out_as_rgb(tmp_path: Path, mode: str):
    image = pytest.importorskip("PIL.Image")
    for label in "ab":
        (tmp_path / "a" / label).mkdir(parents=True)
        for i in range(10):
            picture = image.new("RGB", (4, 3 + i), (255, 255, 255))
            picture.convert(mode).save(tmp_path / "a" / label / f"{i}-{label}.png", dpi=(i, i))
    rows = task(tmp_path, data={"train": "a", "test": "a"}, splits={"validation": "test"})
    with pytest.raises(SuiteError, match="validation and test would both"):
        rows.rows("train")
    rows = task(tmp_path, data={"train": "a", "validation": "a", "test": "a"})
    for picture in rows.rows("test").inputs:
        assert picture.mode == "RGB" and picture.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)])
def test_arrays_of_pictures(tmp_path: Path, shape: tuple[int, ...]):
    images = np.random.default_rng(0).integers(0, 256, (30, *shape), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(30) % 3)
    found = task(tmp_path, data="a.npz")
    there = {image.tobytes(): i % 3 for i, image in enumerate(images)}
    for split in SPLITS:
        for picture, label in zip(found.rows(split).inputs, found.rows(split).labels, strict=True):
            pixels = np.asarray(picture)
            assert pixels.shape == (5, 4, 3)
            assert there[(pixels if len(shape) == 3 else pixels[..., 0]).tobytes()] == label


@pytest.mark.parametrize(
    "arrays, expected",
    [
        ({"images": np.zeros((2, 3, 3), np.uint8)}, "no array 'labels'; it has images"),
        ({"images": np.zeros((2, 3, 3)), "labels": [0, 1]}, "images are float64 of shape"),
        ({"images": np.zeros((2, 3, 3, 2), np.uint8), "labels": [0, 1]}, "Give uint8 of shape"),
        ({"images": np.zeros((2, 3, 3), np.uint8), "labels": [0, 1, 2]}, "labels are int64 of"),
        ({"images": np.zeros((2, 3, 3), np.uint8), "labels": [0.5, 1]}, "labels are float64"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(tmp_path: Path, arrays: Any, expected: str):
    np.savez(tmp_path / "a.npz", **arrays)
    refused(expected, tmp_path, data="a.npz")
