#!/usr/bin/env bash
# textstat 0.7.13: `gunning_fog` and `dale_chall_readability_score` seem to need no data: on text whose words are all in the
# easy list they give a value. At the first word that is not, in the midst of a run, they download NLTK's cmudict from the
# network, once for each text where that fails, and then raise a LookupError about NLTK. Nothing at import or in the
# docstrings says so; the formulas that really need no data are automated_readability_index, coleman_liau_index, lix, rix
# and mcalpine_eflaw.
# Seen:  gunning_fog: 2.40 for easy words, then 2 downloads for 2 texts, LookupError
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q textstat==0.7.13
NLTK_DATA="$folder" "$folder/venv/bin/python" - <<'PYTHON'
import os

import nltk
import textstat

nltk.data.path[:] = [os.environ["NLTK_DATA"]]
asked = []
nltk.download = lambda package, **kwargs: asked.append(package)  # a machine without a network
for formula in (textstat.gunning_fog, textstat.dale_chall_readability_score):
    asked.clear()
    easy = formula("The cat sat on the mat.")
    assert not asked
    for text in ("The actor sat on the mat.", "The mat was made in Rome."):
        try:
            formula(text)
        except LookupError as error:
            raised = type(error).__name__
    print(f"{formula.__name__}: {easy:.2f} for easy words, then {len(asked)} downloads for 2 texts, {raised}")
    assert asked == ["cmudict"] * 2
for name in ("automated_readability_index", "coleman_liau_index", "lix", "rix", "mcalpine_eflaw"):
    getattr(textstat, name)("The actor sat in Rome.")
assert len(asked) == 2
PYTHON
