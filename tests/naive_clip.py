"""A few pictures, and what CLIP answers for one of them and one text at a time."""

from __future__ import annotations

import foundation_tasks as small
import numpy as np
import pytest
from tiny_models import SHAPES as NAMES
from tiny_models import clip_processor

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

PROCESSOR = clip_processor()


def pictures(n=7):
    generator = np.random.default_rng(1)
    made = []
    for number in range(n):
        height, width = generator.integers(30, 60, 2)
        array = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        array[..., number % 3] //= 3
        made.append(Image.fromarray(array))
    made[1] = made[1].convert("L")
    return made


def shapes(**more):
    return small.task(pictures(), [0, 1, 2, 0, 1, 2, 0], NAMES, **more)


def features(found):
    """Return the only row of what transformers 5 wraps in an output."""
    return getattr(found, "pooler_output", found)[0]


def naive_logits(folder, state=None, templates=("a photo of a {}.",), names=NAMES):
    """Return what CLIPModel answers for one picture and one text at a time."""
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    processor = PROCESSOR.from_pretrained(folder)
    classes = []
    with torch.no_grad():
        for name in names:
            each = []
            for template in templates:
                tokens = tokenizer(template.replace("{}", name), return_tensors="pt")
                tokens = {key: tokens[key] for key in ("input_ids", "attention_mask")}
                vector = features(model.get_text_features(**tokens))
                each.append(vector / vector.norm())
            mean = torch.stack(each).mean(0)
            classes.append(mean / mean.norm())
        if state is not None:
            model.load_state_dict({n: torch.from_numpy(a) for n, a in state.items()}, strict=False)
        rows = []
        for picture in pictures():
            pixels = processor(picture, return_tensors="pt")
            vector = features(model.get_image_features(**pixels))
            rows.append(torch.stack(classes) @ (vector / vector.norm()))
        scale = transformers.CLIPModel.from_pretrained(folder).logit_scale.exp()
        return scale * torch.stack(rows)
