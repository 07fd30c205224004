"""llmctl: one command-line tool that takes raw text to a tuned language model."""

__version__ = "0.1.0"
