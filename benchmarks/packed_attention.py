"""What attention over a packed row costs: its documents, and not the square of the row.

    python benchmarks/packed_attention.py --row 65536 --heads 1 --head-size 64

Rows of the same length are made of ever shorter documents. For each, the time of forward and backward is set against the sum of
the squares of the documents' lengths, both relative to the row that is one document. Where memory allows (--dense up to so many
tokens) plain attention with a dense mask of documents is timed beside it.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from common import write_result


def main() -> None:
    import torch

    from llmctl.model.attention import packed_attention

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", type=int, default=65_536, help="Tokens in the row.")
    parser.add_argument("--heads", type=int, default=1)
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--window", type=int, help="Of sliding-window layers.")
    parser.add_argument("--dense", type=int, default=8192, help="Tokens up to which a dense mask is timed, too.")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(1)
    shape = (1, asked.heads, asked.row, asked.head_size)
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    q, k, v = (torch.randn(shape, generator=generator).to(device, kind).requires_grad_() for _ in range(3))

    def packed(lengths: tuple[int, ...]) -> Any:
        starts = torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32)
        scale = asked.head_size**-0.5
        return lambda: packed_attention(q, k, v, lengths, starts, max(lengths), asked.window, scale, "per_document")

    def dense(lengths: tuple[int, ...]) -> Any:
        number = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(device)
        place = torch.arange(asked.row, device=device)
        mask = (number[:, None] == number[None]) & (place[:, None] >= place[None])
        if asked.window is not None:
            mask &= place[:, None] - place[None] < asked.window
        return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def seconds(attend: Any) -> float:
        best = float("inf")
        for _ in range(asked.repeats):
            started = time.perf_counter()
            attend().sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
        return best

    results: list[dict[str, float]] = []
    count = 1
    while asked.row // count >= 512:
        lengths = (asked.row // count,) * count
        squares = sum(length**2 for length in lengths) / asked.row**2
        found = {"documents": float(count), "seconds": seconds(packed(lengths)), "squares": squares}
        if asked.row <= asked.dense:
            found["dense_seconds"] = seconds(dense(lengths))
        results.append(found)
        share = found["seconds"] / results[0]["seconds"]
        told = f"{count:>4} documents of {lengths[0]:>6,}: {found['seconds']:8.2f} s, {share:.4f} of the whole"
        print(f"{told}; squares {squares:.4f}")
        if "dense_seconds" in found:
            print(
                f"     dense mask: {found['dense_seconds']:8.2f} s, {found['dense_seconds'] / found['seconds']:.1f} times as long"
            )
        count *= 2
    write_result({"asked": {k: v for k, v in vars(asked).items() if k != "out"}, "results": results}, asked.out)


if __name__ == "__main__":
    main()
