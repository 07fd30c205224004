"""Tokenising and BPE training through the fast optional packages, beside `tokenizers` on the same documents and cores.

    pip install -e ".[fast]" -c constraints.txt
    python benchmarks/tokenizer_speed.py --megabytes 60
    python benchmarks/tokenizer_speed.py --text articles.jsonl.zst

The documents are the Python source of the installed packages, or those of `--text` (a file or folder, field "text"). Prints for
encoding the time of a whole pass (the best of three, each with a new encoder and its check of a sample) and whether all ids are
equal; for training to 32,000 tokens on nine tenths the time and the bytes per token on the last tenth. `--out` writes it as JSON.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import documents, options, write_result

VOCABULARY = 32_000


def best_of_three(work: Callable[[], Any]) -> tuple[float, Any]:
    seconds, result = [], None
    for _ in range(3):
        started = time.time()
        result = work()
        seconds.append(time.time() - started)
    return min(seconds), result


def main() -> None:
    import numpy as np

    from llmctl.tokens.encoder import Encoder
    from llmctl.tokens.tokenizer import compression, load_tokenizer, train_tokenizer

    parser = options(__doc__)
    parser.add_argument("--megabytes", type=int, default=60)
    chosen = parser.parse_args()
    texts = documents(chosen.text, chosen.megabytes)
    size = sum(len(text.encode()) for text in texts)
    print(f"{len(texts):,} documents, {size / 1e6:.1f} MB")
    result: dict[str, Any] = {"documents": len(texts), "bytes": size, "training": {}}
    heldout, train = texts[::10], [text for place, text in enumerate(texts) if place % 10]
    with tempfile.TemporaryDirectory() as folder:
        for trainer in ("tokenizers", "rustbpe"):
            out = Path(folder) / trainer
            started = time.time()
            train_tokenizer(iter(train), VOCABULARY, out, trainer)
            seconds = time.time() - started
            tokenizer = load_tokenizer(str(out))
            result["training"][trainer] = {"seconds": seconds, "bytes_per_token": compression(tokenizer, heldout)}
            print(f"training, {trainer:12s}{seconds:8.2f} s   {compression(tokenizer, heldout):.4f} held-out bytes per token")
        tokenizer = load_tokenizer(str(Path(folder) / "tokenizers"))
    fast, slow = Encoder(tokenizer), Encoder(tokenizer)
    slow._fast = None
    theirs = slow(texts)
    quick, mine = best_of_three(lambda: Encoder(tokenizer)(texts))
    encode_batch, _ = best_of_three(lambda: tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    equal = all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
    seconds = {fast.engine: quick, "encode_batch_fast": encode_batch}
    result["encoding"] = {"seconds": seconds, "ratio": encode_batch / quick, "ids_equal": equal}
    for name, taken in seconds.items():
        print(f"encoding, {name:18s}{taken:8.2f} s   {size / taken / 1e6:8.1f} MB/s")
    print(f"encode_batch_fast takes {encode_batch / quick:.1f} times as long; ids equal: {equal}")
    write_result(result, chosen.out)


if __name__ == "__main__":
    sys.exit(main())
