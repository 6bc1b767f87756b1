"""What a colleague would say before a merge begins: models that fit and do not go together.

`judged` adds a line to the plan's warnings for each thing found. It reads the configs and
tokenizers beside the weights, and a bounded sample of the weights; it changes nothing that is
merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from breadcrumbs.errors import MismatchError, sentence
from breadcrumbs.plan.judgement import configs, directions, schedulers, tokenizers, weights
from breadcrumbs.plan.plan import Plan


def judged(plan: Plan, strict: bool = False, packing: bool = False) -> Plan:
    """Return the plan with the warnings of all judgements; MismatchError for any if ``strict``.

    packing: whether nothing is merged yet, but task vectors are written.
    """
    found = [
        *configs.warnings(plan),
        *schedulers.warnings(plan),
        *tokenizers.warnings(plan, packing),
        *weights.warnings(plan),
        *directions.warnings(plan),
    ]
    plan = replace(plan, warnings=tuple(dict.fromkeys((*plan.warnings, *found))))
    if strict:
        refuse(plan.warnings)
    return plan


def refuse(warnings: Sequence[str]) -> None:
    """Raise MismatchError if there are warnings, with the first of them."""
    if warnings:
        more = len(warnings) - 1
        rest = f" And {more} more." if more else ""
        raise MismatchError(
            f"{sentence(warnings[0])}{rest} Nothing is written, because of --strict; without it"
            " this is a warning."
        )
