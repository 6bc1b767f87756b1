"""A suite of two tasks, and the fine-tuning on one of them that nothing interrupted."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a suite of two tasks."""
    from bag_family import prepare

    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BREADCRUMBS_CACHE", str(folder / "cache"))
        prepare(folder)
        yield folder


@pytest.fixture(scope="module")
def suite(home):
    from breadcrumbs.evaluate import suite as suites

    return suites.load(home / "two-three-bag-base.yaml")


@pytest.fixture(scope="module")
def whole(one_thread, suite, tmp_path_factory):
    """The fine-tuning on `three` that nothing interrupted."""
    from bag_family import tuner

    output = tmp_path_factory.mktemp("whole")
    tuner(suite, output).tune("three", 0)
    return output / "seed-0" / "three"
