"""`llmctl report`: a whole run on one page."""


def report() -> None:
    """Not there yet."""
    raise NotImplementedError
