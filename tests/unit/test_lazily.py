"""What a serving process does not load until somebody needs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from dragonfly.core.lazily import Lazily
from dragonfly.migrations import newest_revision

LOADED_ON_USE = ("alembic", "authlib", "cryptography", "httpx", "joserfc", "stripe")


def test_importing_the_whole_program_leaves_out_what_few_need() -> None:
    program = f"import dragonfly.cli, sys; print([name for name in {LOADED_ON_USE} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_module_comes_when_something_of_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "seldom_used.py").write_text("answer = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    seldom_used = Lazily("seldom_used")
    assert "seldom_used" not in sys.modules
    assert seldom_used.answer == 42
    assert "seldom_used" in sys.modules


def test_what_is_not_in_the_module_is_an_error() -> None:
    with pytest.raises(AttributeError):
        _ = Lazily("string").no_such_thing


def test_the_newest_revision_is_the_one_that_alembic_finds() -> None:
    config = Config()
    config.set_main_option("script_location", "dragonfly:migrations")
    assert newest_revision() == ScriptDirectory.from_config(config).get_current_head()
