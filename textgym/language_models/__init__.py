"""Language models: one loader for policies, references and scorers, and the embedded model `"tiny"`."""

from textgym.language_models.loader import load_model, load_model_and_tokenizer, load_tokenizer

__all__ = ["load_model", "load_model_and_tokenizer", "load_tokenizer"]
