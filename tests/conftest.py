"""Profiles of hypothesis (HYPOTHESIS_PROFILE=long searches for longer), and shared fixtures."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from fsmount.codec import engine

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("default"), max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(params=[True, False], ids=["kernel", "numpy"], scope="module")
def both_engines(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything with the native kernel, and once more without."""
    if request.param and not engine.NATIVE:
        pytest.skip("no kernel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "NATIVE", request.param)
        yield
