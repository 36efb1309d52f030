from __future__ import annotations

import pytest
import simt_build
from emulator import Runtime, load


@pytest.fixture(scope="session")
def harness() -> Runtime:
    """The kernels of the harness's own tests."""
    return load(simt_build.build_cases())
