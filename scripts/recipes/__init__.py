"""TextGym in the loops of other libraries: one file each, to be copied; docs/recipes.md says what to look out for.

The comment at the head of each file is inline script metadata (PEP 723): the packages that it is tested with.
"""
