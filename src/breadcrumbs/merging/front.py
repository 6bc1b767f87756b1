"""The front matter of a model card, by the hub's conventions: what a hub files the model under."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import composite, configs, origin, parts
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.merging import licences
from breadcrumbs.merging.said import Card
from breadcrumbs.plan import Plan

#: Ends of the classes that a config of transformers names, and the task that they are for.
_TASKS = {
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForSemanticSegmentation": "image-segmentation",
    "ForAudioClassification": "audio-classification",
    "ForCTC": "automatic-speech-recognition",
    "ForSpeechSeq2Seq": "automatic-speech-recognition",
    "WhisperForConditionalGeneration": "automatic-speech-recognition",
    "CLIPModel": "zero-shot-image-classification",
    "StableDiffusionPipeline": "text-to-image",
    "StableDiffusionXLPipeline": "text-to-image",
    "FluxPipeline": "text-to-image",
}


def matter(plan: Plan, said: Mapping[str, Card], adapter: bool = False) -> dict[str, Any]:
    """Return the front matter of a merge. said: by label, what each input says of itself.

    adapter: whether what was written is one, of the base.
    """
    front: dict[str, Any] = {}
    ids = hub_ids(plan, said)
    repos = dict.fromkeys(repo for mine in ids.values() for repo in mine)
    base = ids.get(plan.base.label, ()) or (plan.base.label,)
    if adapter and origin.is_repo(base[0]):
        front["base_model"] = base[0]
        front["base_model_relation"] = "adapter"
    elif repos and not adapter:
        front["base_model"] = list(repos)
        front["base_model_relation"] = "merge"
    languages = dict.fromkeys(one for card in said.values() for one in card.languages)
    if languages:
        front["language"] = list(languages)
    target = said.get(plan.target.label, Card())
    library = _library(plan.target.folder) or target.library_name
    if adapter or library:
        front["library_name"] = _of_adapter(plan) if adapter else library
    licence = licences.of(said)
    if licence.id:
        front["license"] = licence.id
    if licence.name:
        front["license_name"] = licence.name
    if licence.link and "://" in licence.link:
        front["license_link"] = licence.link
    if task := _task(plan.target.folder, library, said, target):
        front["pipeline_tag"] = task
    front["tags"] = ["merge", "breadcrumbs", *(["lora"] if adapter else [])]
    return front


def _of_adapter(plan: Plan) -> str:
    """Return the library that loads an adapter of the base, see `adapter_folder`."""
    several = any(composite.component(plan.base, tensor.name) for tensor in plan.tensors)
    return "diffusers" if several else "peft"


def hub_ids(plan: Plan, said: Mapping[str, Card]) -> dict[str, tuple[str, ...]]:
    """Return the hub ids of each model by its label: one, none if it is not known, or an adapter's
    too.

    That of the base is known too where all fine-tunings name one and the same, as the model that
    they were loaded from or in their cards.
    """
    found: dict[str, tuple[str, ...]] = {}
    for source in plan.origins:
        found[source.label] = origin.repos(source) if source.cut is None else ()
    base, others = plan.base.label, [s for s in plan.origins if s.label != plan.base.label]
    if base in found and not found[base]:
        named = [_named(source, said.get(source.label, Card())) for source in others]
        if named and named[0] and len(set(named)) == 1:
            found[base] = (named[0],)
    return found


def _named(model: Checkpoint, card: Card) -> str:
    """Return the hub id of what a model was fine-tuned from, by its own files; or nothing."""
    if len(card.base_models) == 1 and origin.is_repo(card.base_models[0]):
        return card.base_models[0]
    return origin.named_in_config(model)


def _library(folder: Path | None) -> str:
    if folder is None:
        return ""
    if parts.is_pipeline(parts.Local(folder)):
        return "diffusers"
    if (folder / parts.MODULES).exists() and parts.folders(parts.Local(folder)):
        return "sentence-transformers"
    return "transformers" if (folder / "config.json").exists() else ""


def _task(folder: Path | None, library: str, said: Mapping[str, Card], target: Card) -> str:
    """Return what the model is for: as its base's card says, or all that say anything, or by its
    kind."""
    if target.pipeline_tag:
        return target.pipeline_tag
    named = {card.pipeline_tag for card in said.values() if card.pipeline_tag}
    if len(named) == 1:
        return named.pop()
    if library == "sentence-transformers":
        return "sentence-similarity"
    names = configs.read(folder).get("architectures")
    name = names[0] if isinstance(names, list) and names else ""
    if library == "diffusers":
        name = configs.read(folder, parts.COMPONENTS).get("_class_name")
    ends = (end for end in _TASKS if isinstance(name, str) and name.endswith(end))
    return next((_TASKS[end] for end in ends), "")
