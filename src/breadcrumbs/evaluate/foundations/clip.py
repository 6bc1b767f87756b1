"""CLIP vision towers with a zero-shot head of the names of the classes.

    t_k = normalise(mean over templates of normalise(text tower("a photo of a {}."))), then frozen
    logits = exp(logit_scale) * normalise(projection(vision tower(x))) . t_k

The base is a whole CLIPModel, or a vision tower alone (CLIPVisionModel, or ...WithProjection); then
``text`` names the CLIPModel that the rest comes from. What is trained and merged is the vision
tower, ``vision_model.*``, as in the fine-tunings on the hub; with ``projection: true`` its
projection too. A state may leave out all the rest.
"""

from __future__ import annotations

import os
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs import checkpoint
from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate.data.settings import Name, Setting, Switch, check_head, checked, words
from breadcrumbs.evaluate.data.task import Rows, Task
from breadcrumbs.evaluate.foundations import pretrained
from breadcrumbs.evaluate.foundations.foundation import Batch

if TYPE_CHECKING:
    import torch

_TEMPLATES = ("a photo of a {}.",)

#: Pictures made ready at once.
_PICTURES = 64


class Clip:
    """`Foundation` of CLIP models that transformers opens. Pictures.

    It remembers tokenizer and image processor of the base that was loaded last.
    """

    kind = "clip"
    trains_heads = False
    SETTINGS: Mapping[str, Setting] = {
        "text": Name("the CLIPModel that has what the base lacks: text tower, projections"),
        "projection": Switch(False, "whether the visual projection is trained and merged too"),
    }

    def __init__(self, settings: Mapping[str, Any], folder: Path | None = None):
        self.settings: Mapping[str, Any] = checked(self.kind, self.SETTINGS, settings)
        text = self.settings["text"]
        beside = (folder or Path()) / text if text else None
        self._text = str(beside) if beside and beside.exists() else text
        self._tokenizer: Any = None
        self._processor: Any = None

    @property
    def models(self) -> tuple[str, ...]:
        """What is loaded besides the base."""
        return () if self._text is None else (self._text,)

    def load(self, base: str) -> torch.nn.Module:
        """Return the CLIPModel with the base's vision tower, all but what is trained frozen."""
        transformers = pretrained.transformers_or_error()
        with checkpoint.open(base) as it:
            whole = any(name.startswith("text_model.") for name in it)
            projects = "visual_projection.weight" in it
        if not whole and self._text is None:
            raise SuiteError(
                f"{base}: is only a vision tower. Say which CLIPModel has its text tower and"
                " projections: foundation: {kind: clip, text: PATH or hub id}."
            )
        if self._text is None:
            module = pretrained.model(transformers.CLIPModel, base)
        else:
            module = pretrained.model(transformers.CLIPModel, self._text)
            kind = transformers.CLIPVisionModelWithProjection
            vision = pretrained.model(kind, base, spare=() if projects else ("visual_projection.",))
            _check_widths(base, vision, module, projects)
            module.vision_model = vision.vision_model
            if projects:
                module.visual_projection = vision.visual_projection
        module.requires_grad_(False)
        module.vision_model.requires_grad_(True)
        module.visual_projection.requires_grad_(self.settings["projection"])
        self._tokenizer = pretrained.beside(transformers.AutoTokenizer, self._text or base)
        # The one that needs no torchvision, and so gives the same pixels everywhere.
        kind = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
        has_own = os.path.isfile(os.path.join(pretrained.folder(base), "preprocessor_config.json"))
        self._processor = pretrained.beside(kind, base if has_own else self._text or base)
        return module

    def prepare(self, task: Task, rows: Rows, size: int) -> Sequence[Batch]:
        """Return pixels as the processor crops them, 8 bits each: `logits` scales them."""
        import torch

        batches = []
        for start in range(0, len(rows), size):
            numbers = np.arange(start, min(start + size, len(rows)))
            pixels = torch.cat(
                [
                    self._pixels(task, rows.inputs[first : min(first + _PICTURES, numbers[-1] + 1)])
                    for first in range(start, numbers[-1] + 1, _PICTURES)
                ]
            )
            labels = torch.from_numpy(rows.labels[numbers].astype(np.int64))
            batches.append(Batch({"pixels": pixels}, numbers, labels))
        return batches

    def head(self, module: Any, task: Task) -> dict[str, torch.Tensor]:
        """Return the text embeddings (classes, width) of the classes, and the scale ().

        Of the task's head: ``templates``, one text or several with ``{}`` where the class goes;
        ``words``, what the classes are called there. An underscore reads as a space.
        """
        import torch

        check_head(task, ("templates", "words"))
        templates = _templates(task)
        device = next(module.parameters()).device
        made = []
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for word in words(task):
                tokens = self._tokenizer(
                    [template.format(word.replace("_", " ")) for template in templates],
                    padding=True,
                    truncation=True,
                    max_length=module.config.text_config.max_position_embeddings,
                    return_tensors="pt",
                ).to(device)
                pooled = module.text_model(
                    input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
                ).pooler_output
                each = torch.nn.functional.normalize(module.text_projection(pooled), dim=-1)
                made.append(torch.nn.functional.normalize(each.mean(0), dim=-1))
            return {"classes": torch.stack(made), "scale": module.logit_scale.exp().clone()}

    def features(self, module: Any, batch: Batch) -> torch.Tensor:
        """Return projections (rows, width), before they are normalised, float32."""
        device = next(module.parameters()).device
        pooled = module.vision_model(self._scaled(batch.inputs["pixels"].to(device))).pooler_output
        return module.visual_projection(pooled).float()

    def answer(self, head: Any, features: torch.Tensor) -> torch.Tensor:
        """Return scale * cosine (rows, classes), float32 whatever autocast makes of the tower."""
        import torch

        with torch.autocast(features.device.type, enabled=False):
            embedded = torch.nn.functional.normalize(features, dim=-1)
            return head["scale"] * embedded @ head["classes"].T

    def logits(self, module: Any, head: Any, batch: Batch) -> torch.Tensor:
        """Return scale * cosine (rows, classes), float32."""
        return self.answer(head, self.features(module, batch))

    def loss(self, module: Any, head: Any, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy of the classes."""
        import torch

        logits = self.logits(module, head, batch)
        return torch.nn.functional.cross_entropy(logits, batch.labels.to(logits.device))

    def _pixels(self, task: Task, pictures: Sequence[Any]) -> torch.Tensor:
        """Return pictures (n, 3, height, width), resized and cropped."""
        import torch

        for picture in pictures:
            if not hasattr(picture, "convert"):
                raise SuiteError(
                    f"task {task.name!r}: a {type(picture).__name__} where foundation clip takes"
                    " pictures. Give a column of images, or a folder of them."
                )
        made = self._processor(
            [picture.convert("RGB") for picture in pictures],
            do_rescale=False,
            do_normalize=False,
            return_tensors="np",
        )
        return torch.from_numpy(np.ascontiguousarray(made["pixel_values"]))

    def _scaled(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return pixels as the tower takes them in: what the processor does last."""
        import torch

        processor = self._processor
        x = pixels.float()
        if processor.do_rescale:
            x = x * processor.rescale_factor
        if processor.do_normalize:
            shape = (3, 1, 1)
            mean = torch.tensor(processor.image_mean, device=x.device).view(shape)
            x = (x - mean) / torch.tensor(processor.image_std, device=x.device).view(shape)
        return x


def _check_widths(base: str, vision: Any, whole: Any, projects: bool) -> None:
    found = (vision.config.hidden_size, vision.config.projection_dim if projects else None)
    own = whole.config.vision_config.hidden_size
    wanted = (own, whole.config.projection_dim if projects else None)
    if found != wanted:
        raise SuiteError(
            f"{base}: its vision tower and projection are {found} wide, and those of `text`"
            f" {wanted}. Name the CLIPModel that it comes from."
        )


def _templates(task: Task) -> tuple[str, ...]:
    given = task.head.get("templates", _TEMPLATES)
    given = (given,) if isinstance(given, str) else given
    where = f"task {task.name!r}: head: templates"
    if not isinstance(given, Sequence) or not given:
        raise SuiteError(f"{where}: give a text with {{}} in it, or a list of them.")
    for template in given:
        if not isinstance(template, str) or _fields(template) != [""]:
            raise SuiteError(f"{where}: {template!r} is not a text with one {{}} for the class.")
    return tuple(given)


def _fields(template: str) -> list[str | None]:
    """Return what is to be filled in, or nothing if the braces do not match."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError:
        return []
    return [name for _, name, _, _ in parsed if name is not None]
