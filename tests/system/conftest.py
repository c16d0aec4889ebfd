"""Fixtures of the system tests."""

from pathlib import Path

import pytest

from tests.system.program import Program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)
