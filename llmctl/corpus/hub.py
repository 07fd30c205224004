"""Data sets of the Hugging Face hub, streamed."""

from collections.abc import Iterator
from typing import Any

from llmctl.errors import UserError
from llmctl.recipe.fields import HUB


def read_hub(path: str, split: str, subset: str | None, files: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of `hf:org/name`.

    Raises:
        UserError: the hub cannot be reached, or it has no such data set.
    """
    from datasets import load_dataset

    name = path.removeprefix(HUB)
    try:
        rows = load_dataset(name, subset, split=split, streaming=True, data_files=files or None)
        for number, row in enumerate(rows, 1):
            yield f"{path}:{number}", dict(row)
    except UserError:
        raise
    except Exception as error:  # datasets lets the errors of its many back ends through as they are
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} (split {split!r}{f', subset {subset!r}' if subset else ''}): cannot be read from the hub: {reason}. "
            "Without network, name a local copy (.parquet or .jsonl files) instead."
        ) from None
