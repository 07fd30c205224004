"""Best-fit packing of a million documents, timed beside first fit, and what each way of packing makes of them.

    python benchmarks/packing.py --documents 1000000 --row 65536

Lengths are spread as those of text are, log-normally. Both ways find a row by a tree; the ratio is of their times.
"""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from common import options, write_result

MEDIAN, SIGMA = 800, 1.5  # tokens, and of their logarithms


def main() -> None:
    from llmctl.tokens.packing import best_fit
    from llmctl.tokens.packing_table import compare, first_fit

    parser = options(__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--row", type=int, default=65_536, help="Tokens in a row.")
    arguments = parser.parse_args()
    drawn = np.random.default_rng(1).lognormal(np.log(MEDIAN), SIGMA, arguments.documents)
    lengths = np.clip(drawn, 2, 2**20).astype(np.int64)
    seconds = {}
    for name, pack in (("best_fit", best_fit), ("first_fit", first_fit)):
        started = time.perf_counter()
        pack(lengths, arguments.row)
        seconds[name] = time.perf_counter() - started
    ways = {way.name: {"rows": way.rows, "padding": way.padding, "cut": way.cut} for way in compare(lengths, arguments.row)}
    print(f"{arguments.documents:,} documents, {lengths.sum():,} tokens, rows of {arguments.row:,}")
    for name, way in ways.items():
        print(f"  {name}: {way['rows']:,} rows, {way['padding']:.3%} padding, {way['cut']:,} documents cut")
    ratio = seconds["first_fit"] / seconds["best_fit"]
    print(f"  best fit {seconds['best_fit']:.1f} s, first fit {seconds['first_fit']:.1f} s: {ratio:.1f} times")
    asked = {"documents": arguments.documents, "row": arguments.row}
    write_result({"asked": asked, "seconds": seconds, "ratio": ratio, "ways": ways}, arguments.out)


if __name__ == "__main__":
    main()
