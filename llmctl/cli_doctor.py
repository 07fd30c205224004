"""`llmctl doctor`: what works on this machine."""


def doctor() -> None:
    """Not there yet."""
    raise NotImplementedError
