"""The chat template of an output: the Jinja text by which a tokenizer writes a conversation.

``auto``   what most models have
a model    what that one has; a folder of any model, too
a name     of `KNOWN`
a file     ``.jinja``
a text     Jinja itself

It is written as `transformers` reads it: ``chat_template.jinja``, and where the tokenizer's config
or a processor's ``chat_template.json`` has one, there too, so that no two differ.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

from breadcrumbs.checkpoint import beside, chats, configs
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.errors import RecipeError, listing, suggestion
from breadcrumbs.plan import Plan

AUTO = "auto"

#: Usual formats, by the names that mergekit has for them.
KNOWN = {
    "chatml": (
        "{% for m in messages %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        "{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for m in messages %}"
        "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
        "{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "mistral": (
        "{{ bos_token }}{% set told = namespace(system='') %}{% for m in messages %}"
        "{% if m.role == 'system' %}{% set told.system = m.content + '\\n\\n' %}"
        "{% elif m.role == 'user' %} [INST] {{ told.system + m.content }} [/INST]"
        "{% set told.system = '' %}"
        "{% elif m.role == 'assistant' %} {{ m.content + eos_token }}"
        "{% else %}{{ raise_exception('a ' + m.role + ' does not speak in this format') }}"
        "{% endif %}{% endfor %}"
    ),
    "alpaca": (
        "{% set heads = {'user': 'Instruction', 'assistant': 'Response',"
        " 'user_context': 'Input'} %}"
        "{% for m in messages %}"
        "{% if m.role == 'system' %}{{ m.content | trim }}\n\n"
        "{% else %}### {{ heads[m.role] }}:\n{{ m.content | trim }}\n\n"
        "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}### Response:\n{% endif %}"
    ),
    "exaone": (
        "{% for m in messages %}"
        "{% if loop.first and m.role != 'system' %}[|system|][|endofturn|]\n{% endif %}"
        "[|{{ m.role }}|]{{ m.content }}{{ '\n' if m.role == 'user' else '[|endofturn|]\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}[|assistant|]{% endif %}"
    ),
}


def of_folder(folder: Path | None) -> str:
    """Return the chat template of the model in a folder; nothing if it has none."""
    return chats.of_folder(folder).get(chats.DEFAULT, "")


def chosen(plan: Plan) -> str:
    """Return the template that a plan asks for, nothing if it asks for none.

    RecipeError where there is no such template, or no tokenizer to write it beside.
    """
    wanted = plan.recipe.chat_template
    if wanted is None:
        return ""
    target = _speaker(plan)
    if not beside.has_tokenizer(target):
        raise RecipeError(
            f"chat_template: {target.label} has no tokenizer for the template to go with. Leave it"
            " out, or give --tokenizer."
        )
    found = _found(plan, wanted)
    if "{" in found:
        _check(found)
    return found


def _speaker(plan: Plan) -> Checkpoint:
    """Return the model whose tokenizer is written."""
    labels = {source.label: source for source in plan.origins}
    words = plan.words.tokenizer if plan.words is not None else None
    return labels.get(plan.recipe.tokenizer or "") or words or plan.target


def _found(plan: Plan, wanted: str) -> str:
    if wanted == AUTO:
        models = sorted(plan.origins, key=lambda source: source.label != plan.target.label)
        texts = [of_folder(source.folder).strip() for source in models]
        common = Counter(text for text in texts if text).most_common(1)
        return common[0][0] if common else ""
    source = next((s for s in plan.origins if wanted in (s.label, s.repo)), None)
    if wanted in KNOWN and source is None:
        return KNOWN[wanted]
    path = Path(os.path.expanduser(wanted))
    is_text = "{" in wanted
    if source is not None or (not is_text and path.is_dir()):
        text = of_folder(source.folder if source is not None else path)
        if not text:
            raise RecipeError(f"chat_template: {wanted} has no chat template. Give another model.")
        return text
    if not is_text and path.is_file():
        return chats.text(path)
    if is_text:
        return wanted
    known = [AUTO, *KNOWN]
    near = suggestion(wanted, known)
    raise RecipeError(
        f"chat_template: {wanted!r} is neither a model, a file nor Jinja.{near} Give one of these,"
        f" or one of {', '.join(known)}."
    )


def _check(text: str) -> None:
    """Raise RecipeError for a text that is no Jinja, where the library is there to tell."""
    try:
        from jinja2 import TemplateSyntaxError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        return
    if "generation" in re.findall(r"{%-?\s*(\w+)", text):  # a tag of transformers' own
        return
    try:
        ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(text)
    except TemplateSyntaxError as error:
        raise RecipeError(
            f"chat_template: line {error.lineno} is not Jinja: {error.message}. Fix it."
        ) from None


def said(plan: Plan, text: str) -> list[str]:
    """Return what the user should look at: tokens that the template writes and that are none."""
    if not text:
        return []
    target = _speaker(plan)
    known = _tokens(target.folder)
    tokens = re.findall(r"<\|[^|<>{}\s]+\|>|<(?:start|end)_of_turn>", text)
    added = plan.words.ids if plan.words is not None else {}
    lost = [t for t in dict.fromkeys(tokens) if t not in known and t not in added]
    if not known or not lost:
        return []
    return [
        f"chat_template: the template writes {listing(lost)}, which the tokenizer of {target.label}"
        " does not have: it would split that into tokens that no model was trained on. Give"
        " --tokenizer of a model that has it, or another template"
    ]


def _tokens(folder: Path | None) -> set[str]:
    """Return the tokens of a ``tokenizer.json``; none where there is none that can be read."""
    data = configs.read(folder, "tokenizer.json")
    model, added = data.get("model"), data.get("added_tokens")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    found = set(vocab) if isinstance(vocab, dict) else set()
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict) and isinstance(token.get("content"), str):
            found.add(token["content"])
    return found


def write(folder: Path, text: str) -> None:
    """Write a template into the folder of an output, wherever one would be read from."""
    if not text:
        return
    (folder / chats.FILE).write_text(text, encoding="utf-8")
    for name in (chats.CONFIG, chats.OLD):
        data = configs.read(folder, name)
        before = data.get("chat_template")
        if before is None:
            continue
        if isinstance(before, list):
            others = [e for e in before if isinstance(e, dict) and e.get("name") != chats.DEFAULT]
            data["chat_template"] = [{"name": chats.DEFAULT, "template": text}, *others]
        else:
            data["chat_template"] = text
        path = folder / name
        path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def recorded(plan: Plan) -> str | None:
    """Return what the recipe of an output says: a word, a model, or the text of a file."""
    wanted = plan.recipe.chat_template
    if wanted is None or wanted in (AUTO, *KNOWN):
        return wanted
    is_input = any(wanted in (source.label, source.repo) for source in plan.origins)
    return wanted if is_input else _found(plan, wanted)
