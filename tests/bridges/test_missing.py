"""Where a bridge's library is missing, the error names the extra that brings it."""

import importlib
import importlib.util

import pytest

from textgym.bridges.lm_eval import held_out_task

USES = {
    "openenv": lambda: importlib.import_module("textgym.bridges.openenv"),
    "verifiers": lambda: importlib.import_module("textgym.bridges.verifiers"),
    "lm_eval": lambda: held_out_task(["a text"]),
}


@pytest.mark.parametrize("library", USES)
def test_the_error_names_the_extra(library):
    if importlib.util.find_spec(library):
        pytest.skip(f"{library} is installed")
    with pytest.raises(ImportError, match=rf'pip install "textgym\[{library.replace("_", "-")}\]"'):
        USES[library]()
