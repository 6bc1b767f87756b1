"""Every merge, task file, store and archive of `jobs` comes out as it did, to the bit.

A change that is meant to change bits writes the digests again (``python -m tests.bits``) and says
so in the changelog.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import algebra
from .jobs import Job, jobs, of_matrices

KNOWN = json.loads(Path(__file__).with_name("digests.json").read_text())
JOBS = dict(jobs(every=False))


def test_every_job_has_a_digest():
    assert JOBS.keys() == KNOWN["digests"].keys()


@pytest.mark.parametrize("name", JOBS)
def test_the_bits_are_the_same(name: str, tmp_path: Path):
    if of_matrices(name) and algebra() != KNOWN["algebra"]:
        pytest.skip(f"another linear algebra: {algebra()}, not {KNOWN['algebra']}")
    job: Job = JOBS[name]
    assert job(tmp_path) == KNOWN["digests"][name]
