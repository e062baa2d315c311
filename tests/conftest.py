"""Settings that every test shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

# The tests run in one process per core: more threads would only wait for each other.
torch.set_num_threads(1)

# How long an example takes says something about the machine, not about attrib.
_unhurried = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", max_examples=20, derandomize=True, **_unhurried)
settings.register_profile("long", max_examples=500, **_unhurried)
settings.load_profile("ci")  # pytest --hypothesis-profile=long overrides it


@pytest.fixture(autouse=True)
def global_state() -> Iterator[None]:
    """Every test starts from the same global state, and leaves torch's modes as they were."""
    torch.manual_seed(0)
    yield
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()
