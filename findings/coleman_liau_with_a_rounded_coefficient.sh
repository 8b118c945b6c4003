#!/usr/bin/env bash
# textstat 0.7.13: `coleman_liau_index` multiplies the letters per 100 words by 0.058, where the index of Coleman and Liau
# (1975) has 0.0588. With 400 to 550 letters per 100 words, as English has, every grade is 0.3 to 0.4 too low. On the
# paper's own abstract (537 letters and 4.20 sentences per 100 words) the index is 14.5; textstat counts one sentence more,
# because of "U.S.".
# Seen:  textstat 13.85; with 0.0588 and its own counts 14.28; with the 5 sentences of the abstract 14.53
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q textstat==0.7.13
"$folder/venv/bin/python" - <<'PYTHON'
import textstat

ABSTRACT = (
    "Existing computer programs that measure readability are based largely upon subroutines which estimate number of "
    "syllables, usually by counting vowels. The shortcoming in estimating syllables is that it necessitates keypunching "
    "the prose into the computer. There is no need to estimate syllables since word length in letters is a better "
    "predictor of readability than word length in syllables. Therefore, a new readability formula was computed that has "
    "for its predictors letters per 100 words and sentences per 100 words. Both predictors can be counted by an optical "
    "scanning device, and thus the formula makes it economically feasible for an organization such as the U.S. Office "
    "of Education to calibrate the readability of all textbooks for the public school system."
)
words, letters = textstat.lexicon_count(ABSTRACT), textstat.letter_count(ABSTRACT)


def index(coefficient, sentences):
    return coefficient * 100 * letters / words - 0.296 * 100 * sentences / words - 15.8


seen, counted = textstat.coleman_liau_index(ABSTRACT), textstat.sentence_count(ABSTRACT)
print(f"textstat {seen:.2f}; with 0.0588 and its own counts {index(0.0588, counted):.2f}; "
      f"with the 5 sentences of the abstract {index(0.0588, 5):.2f}")
assert abs(index(0.0588, 5) - 14.5) < 0.1  # the paper's own value
assert abs(seen - index(0.058, counted)) < 1e-6 and index(0.0588, counted) - seen > 0.4
PYTHON
