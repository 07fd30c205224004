"""Near-duplicate removal, 26 bands of 11, word 5-grams, beside datatrove 0.10 on the same documents and cores.

    python -m venv peer && peer/bin/pip install datatrove==0.10.1 orjson nltk spacy tokenizers pyarrow xxhash==3.5.0
    python benchmarks/dedup_datatrove.py --peer-python peer/bin/python --megabytes 100

The documents are the Python source of the installed packages, or `--text FILE.jsonl.zst` with a field "text". Prints seconds from
Parquet to the list of survivors for both, their ratio, and on how many documents they differ; `--out` writes it as JSON.
datatrove joins what shares a band and looks no further; llmctl compares those by their n-grams before. So that like is compared
with like, llmctl also runs with any similarity allowed ("not verified"), and that again with other hash functions ("other
seed"): as many documents as differ there differ by chance.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from common import WORKERS, documents, options, write_result

BANDS, ROWS, NGRAM = 26, 11, 5


def peer(folder: Path) -> None:
    """Run by the peer's Python: datatrove's four steps over folder/parquet, and the survivors' ids to folder/peer.json."""
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import JsonlWriter

    config = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS)
    signatures, buckets, gone, kept = (str(folder / name) for name in ("signatures", "buckets", "gone", "kept"))

    def reader() -> ParquetReader:
        return ParquetReader(str(folder / "parquet"), id_key="n", read_metadata=False)

    def run(pipeline: list, tasks: int) -> None:
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=WORKERS, skip_completed=False, start_method="fork",
                              logging_dir=str(folder / "logs")).run()  # fmt: skip

    started = time.time()
    run([reader(), MinhashDedupSignature(signatures, config=config)], WORKERS)
    signed = time.time()
    run([MinhashDedupBuckets(signatures, buckets, config=config)], BANDS)
    run([MinhashDedupCluster(buckets, gone, config=config)], 1)
    run([reader(), MinhashDedupFilter(gone), JsonlWriter(kept, compression=None)], WORKERS)
    seconds = time.time() - started
    survivors = [int(json.loads(line)["id"]) for file in Path(kept).glob("*.jsonl") for line in file.open()]
    result = {"seconds": seconds, "signature_seconds": signed - started, "survivors": survivors}
    (folder / "peer.json").write_text(json.dumps(result))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.peer:
        peer(chosen.peer)
        return
    import pyarrow
    import pyarrow.parquet

    from llmctl.corpus.documents import Document
    from llmctl.corpus.duplicates import find_copies
    from llmctl.corpus.engine import load_daft
    from llmctl.corpus.pool import writing_pool
    from llmctl.recipe.corpus_schema import DedupTable

    texts = documents(chosen.text, chosen.megabytes)
    size = sum(len(text.encode()) for text in texts)
    print(f"{len(texts):,} documents, {size / 1e6:.1f} MB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "parquet").mkdir()
        with writing_pool(folder / "pool") as write:
            for place, text in enumerate(texts):
                write(Document(text, str(place), "own", str(place)))
        table = pyarrow.table({"n": list(map(str, range(len(texts)))), "text": texts})
        for worker in range(WORKERS):  # datatrove's workers share files, not rows
            part = table.take(list(range(worker, len(texts), WORKERS)))
            pyarrow.parquet.write_table(part, folder / "parquet" / f"{worker}.parquet", compression="zstd")
        daft = load_daft()
        runs = {"llmctl": DedupTable(ngram=NGRAM, bands=BANDS, rows=ROWS)}
        runs["not verified"] = runs["llmctl"].model_copy(update={"similarity": 1e-9})
        result: dict = {"documents": len(texts), "bytes": size}
        kept = {}
        runs["other seed"] = runs["not verified"]
        minhash = daft.functions.minhash
        for name, settings in runs.items():
            daft.functions.minhash = partial(minhash, seed=2 if name == "other seed" else 1)
            started = time.time()
            copies, _ = find_copies(folder / "pool", settings)
            seconds = time.time() - started
            kept[name] = set(range(len(texts))) - set(copies)
            result[name] = {"seconds": seconds, "survivors": len(kept[name])}
            print(f"{name:14s}{seconds:8.1f} s   {len(kept[name]):,} survivors")
        result["by_chance"] = len(kept["not verified"] ^ kept["other seed"])
        print(f"{result['by_chance']:,} documents differ between two seeds")
        if chosen.peer_python:
            subprocess.run([chosen.peer_python, __file__, "--peer", folder], check=True, stderr=subprocess.DEVNULL)
            other = json.loads((folder / "peer.json").read_text())
            theirs = set(other.pop("survivors"))
            result["datatrove"] = other | {"survivors": len(theirs), "ratio": other["seconds"] / result["llmctl"]["seconds"]}
            print(f"{'datatrove':14s}{other['seconds']:8.1f} s   {len(theirs):,} survivors")
            print(f"datatrove takes {result['datatrove']['ratio']:.1f} times as long")
            for name, mine in [(name, mine) for name, mine in kept.items() if name != "other seed"]:
                alone = {"kept_by_llmctl_alone": len(mine - theirs), "kept_by_datatrove_alone": len(theirs - mine)}
                result[name] |= alone
                difference = abs(len(mine) - len(theirs)) / len(texts)
                print(f"{name}: {alone}, {difference:.2%} of the documents")
    write_result(result, chosen.out)


if __name__ == "__main__":
    sys.exit(main())
