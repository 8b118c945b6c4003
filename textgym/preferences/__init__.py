"""What people prefer: pairs and ratings of texts as data, how far raters agree, and raters that are made up."""

from textgym.preferences.data import (
    Demonstration,
    Preference,
    Rating,
    read_demonstrations,
    read_preferences,
    read_ratings,
)

__all__ = ["Demonstration", "Preference", "Rating", "read_demonstrations", "read_preferences", "read_ratings"]
