"""What people prefer: pairs and ratings of texts as data, how far raters agree, and raters that are made up."""

from textgym.preferences.data import Preference, Rating, read_preferences, read_ratings

__all__ = ["Preference", "Rating", "read_preferences", "read_ratings"]
