"""The notebooks: they run from top to bottom, and their links lead somewhere."""

import json
import re

import pytest

from tests.helpers.docs import ROOT, run_python

NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))}


def cells(name, kind):
    """The sources of the cells of a kind, in order."""
    notebook = json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_there_are_two():
    assert list(NOTEBOOKS) == ["five_divergences", "own_reward"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name, tmp_path):
    printed = run_python(["-c", "\n".join(cells(name, "code"))], tmp_path)
    if name == "own_reward":
        before, after = (float(reward) for reward in re.findall(r"^reward (\S+)", printed, re.M))
        assert after > before + 0.3  # more than ten of the standard errors that it prints
    else:
        assert "341 texts" in printed  # the notebook itself asserts the rest


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_of_a_notebook_lead_somewhere(name):
    links = re.findall(r"\]\(([^)\s]+)\)", "\n".join(cells(name, "markdown")))
    assert links and all((NOTEBOOKS[name].parent / link).is_file() for link in links)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_was_run_once_in_order_and_no_output_is_an_error_or_has_a_path(name):
    notebook = json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for output in (output for cell in code for output in cell["outputs"]):
        assert output["output_type"] in ("stream", "display_data")
        assert not re.search(r"/(home|root|tmp|Users)/", "".join(output.get("text", [])))
