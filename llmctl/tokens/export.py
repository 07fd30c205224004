"""Token shards written for other trainers."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from llmctl.errors import UserError
from llmctl.runs.files import staged_folder
from llmctl.tokens.megatron import write_megatron
from llmctl.tokens.shards import TokenShards


def export_shards(shards: Path, sources: list[str], out: Path, form: Literal["megatron", "olmo"]) -> Iterator[str]:
    """Write the shards of `sources`, or of all, below `out`: SOURCE.bin and SOURCE.idx, or SOURCE/part-00000.npy and .csv.gz.
    Tells what is written, a line for each source.

    Raises:
        UserError: there is no such source.
    """
    known = sorted(file.parent.name for file in shards.glob("*/meta.json"))
    if unknown := set(sources) - set(known):
        raise UserError(f"--source {min(unknown)}: no such source; there are {', '.join(known)}")
    for name in sources or known:
        found = TokenShards(shards / name)
        if form == "megatron":
            write_megatron(found, out / name)
        else:
            with staged_folder(out / name) as aside:
                for file in [*found.folder.glob("part-*.npy"), *found.folder.glob("part-*.csv.gz")]:
                    shutil.copyfile(file, aside / file.name)
        what = f"{name}.bin, {name}.idx" if form == "megatron" else f"{name}/part-*.npy, .csv.gz"
        yield f"{name}: {found.documents:,} documents, {found.tokens:,} tokens of {found.kind.name} in {out}/ ({what})"
