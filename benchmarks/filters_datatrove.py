"""Heuristic filters, Gopher's and C4's with the same thresholds, beside datatrove 0.10 on the same documents and cores.

    python -m venv peer && peer/bin/pip install datatrove==0.10.1 orjson nltk spacy tokenizers pyarrow xxhash==3.5.0
    python benchmarks/filters_datatrove.py --peer-python peer/bin/python --text articles.jsonl.zst --megabytes 30

`--text` is a file or folder of documents (field "text" of JSON lines or Parquet, plain text). Prints seconds from Parquet to the
documents that pass, for both, and on how many they differ; `--out` writes it as JSON. datatrove is given words that are split at
white space, as llmctl splits them: its own splitter takes three times as long and keeps others.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import WORKERS, documents, options, write_result


def peer(folder: Path) -> None:
    """Run by the peer's Python: the filters over folder/parquet, and the ids that pass to folder/peer.json."""
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
        gopher_quality_filter,
        gopher_repetition_filter,
    )
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import JsonlWriter

    gopher_quality_filter.split_into_words = gopher_repetition_filter.split_into_words = lambda text, _: text.split()
    pipeline = [
        ParquetReader(str(folder / "parquet"), id_key="n", read_metadata=False),
        GopherQualityFilter(),
        GopherRepetitionFilter(),
        C4QualityFilter(remove_citations=False),
        JsonlWriter(str(folder / "kept"), compression=None),
    ]
    started = time.time()
    LocalPipelineExecutor(pipeline, tasks=WORKERS, workers=WORKERS, skip_completed=False, start_method="fork",
                          logging_dir=str(folder / "logs")).run()  # fmt: skip
    seconds = time.time() - started
    kept = [int(json.loads(line)["id"]) for file in (folder / "kept").glob("*.jsonl") for line in file.open()]
    (folder / "peer.json").write_text(json.dumps({"seconds": seconds, "kept": kept}))


def passing(texts: list[str], folder: Path) -> tuple[float, set[int], dict[str, int]]:
    """Seconds, places of the documents that pass, and how many each rule dropped."""
    from llmctl.corpus.attrition import Attrition
    from llmctl.corpus.documents import Document
    from llmctl.corpus.filtering import filter_pool
    from llmctl.corpus.pool import read_pool, writing_pool
    from llmctl.recipe.corpus_schema import CorpusTable
    from llmctl.recipe.filter_schema import PROFILES, FilterTable

    apart = ("min_characters", "max_newlines", "max_words_removed", "max_suspect_sentences")  # not among datatrove's rules
    lines = {name for name in PROFILES["prose"] if name in PROFILES["c4"]} - {"max_words"}
    gopher = {
        name: field.default
        for name, field in FilterTable.model_fields.items()
        if name in PROFILES["code"] and name in PROFILES["c4"] and name not in lines and name not in apart
    }
    rules = FilterTable(**PROFILES["c4"] | gopher)
    with writing_pool(folder / "pool") as write:
        for place, text in enumerate(texts):
            write(Document(text, str(place), "own", str(place)))
    attrition = Attrition()
    started = time.time()
    filter_pool("own", folder / "pool", folder / "passed", rules, CorpusTable(), folder, attrition)
    seconds = time.time() - started
    return (
        seconds,
        {int(d.id) for d in read_pool(folder / "passed")},
        {r["rule"]: r["documents"] for r in attrition.rows()},
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--megabytes", type=int, default=30)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.peer:
        peer(chosen.peer)
        return
    import pyarrow
    import pyarrow.parquet

    from llmctl.corpus.engine import load_daft

    if chosen.text is None:
        parser.error("--text is needed: code passes none of these filters")
    texts = [text.strip() for text in documents(chosen.text, chosen.megabytes)]
    size = sum(len(text.encode()) for text in texts)
    print(f"{len(texts):,} documents, {size / 1e6:.1f} MB")
    result: dict[str, Any] = {"documents": len(texts), "bytes": size}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "parquet").mkdir()
        for worker in range(WORKERS):  # datatrove's workers share files, not rows
            places = list(range(worker, len(texts), WORKERS))
            part = pyarrow.table({"n": list(map(str, places)), "text": [texts[place] for place in places]})
            pyarrow.parquet.write_table(part, folder / "parquet" / f"{worker}.parquet", compression="zstd")
        load_daft()
        seconds, mine, rules = passing(texts, folder)
        result["llmctl"] = {"seconds": seconds, "kept": len(mine), "dropped": rules}
        print(f"llmctl     {seconds:8.1f} s   {len(mine):,} pass")
        if chosen.peer_python:
            subprocess.run([chosen.peer_python, __file__, "--peer", folder], check=True, stderr=subprocess.DEVNULL)
            other = json.loads((folder / "peer.json").read_text())
            theirs = set(other["kept"])
            alone = {"kept_by_llmctl_alone": len(mine - theirs), "kept_by_datatrove_alone": len(theirs - mine)}
            result["datatrove"] = {"seconds": other["seconds"], "kept": len(theirs), "ratio": other["seconds"] / seconds} | alone
            print(f"datatrove  {other['seconds']:8.1f} s   {len(theirs):,} pass")
            print(f"datatrove takes {result['datatrove']['ratio']:.1f} times as long; {alone}")
    write_result(result, chosen.out)


if __name__ == "__main__":
    sys.exit(main())
