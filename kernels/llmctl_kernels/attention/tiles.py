"""What the kernels of attention share: tiles in and out of memory, products, and which keys a query sees."""

import triton
import triton.language as tl


@triton.jit
def load_tile(pointer, first, length, stride, ROWS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, RAGGED: tl.constexpr):
    """Rows `first` to `first + ROWS` of a document `[length, D]`, zeros beyond its edges. Without RAGGED all have to exist."""
    rows = tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK_D)
    # 64 bits for the tile's first row and 32 for the places inside: wide offsets of every element would cost registers
    pointers = pointer + tl.cast(first, tl.int64) * stride + (rows[:, None] * stride + columns[None, :])
    if RAGGED and D != BLOCK_D:
        tile = tl.load(pointers, mask=(first + rows < length)[:, None] & (columns < D)[None, :], other=0.0)
    elif RAGGED:
        tile = tl.load(pointers, mask=(first + rows < length)[:, None], other=0.0)
    elif D != BLOCK_D:
        tile = tl.load(pointers, mask=(columns < D)[None, :], other=0.0)
    else:
        tile = tl.load(pointers)
    return tile


@triton.jit
def store_tile(
    pointer, tile, first, length, stride, ROWS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, INTERPRETED: tl.constexpr
):  # fmt: skip
    """Writes a tile as rows `first` to `first + ROWS` of a document `[length, D]`, as far as these exist."""
    rows = tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK_D)
    pointers = pointer + tl.cast(first, tl.int64) * stride + (rows[:, None] * stride + columns[None, :])
    tile = rounded(tile, pointer.dtype.element_ty, INTERPRETED)
    tl.store(pointers, tile, mask=(first + rows < length)[:, None] & (columns < D)[None, :])


@triton.jit
def rounded(tile, dtype: tl.constexpr, INTERPRETED: tl.constexpr):
    """A tile of float32 in a dtype, to nearest even."""
    if INTERPRETED and dtype == tl.bfloat16:  # Triton's interpreter cuts the last bits off
        bits = tile.to(tl.uint32, bitcast=True)
        tile = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).to(tl.float32, bitcast=True)
    return tile.to(dtype)


@triton.jit
def product(left, right, INTERPRETED: tl.constexpr):
    """`left @ right` of one dtype, in float32."""
    if INTERPRETED:  # Triton's interpreter takes the bits of bfloat16 for integers here
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, input_precision="ieee")


@triton.jit
def locate(cu_seqlens, slot, documents, total, BLOCK: tl.constexpr):
    """The document of which a slot holds a block, and the block's first row in it.

    Document d's blocks take the slots from `cu_seqlens[d] // BLOCK + d` on. These are at least as many as it has blocks, so
    that `total // BLOCK + documents + 1` slots hold all blocks of all documents, and few slots are left over; a grid over
    (documents, blocks of the longest) would be empty but for a few blocks where many documents are short. The rows after the
    last document, if any, count as one more: document number `documents`.

    Returns: document, its first row, its length, the block's first row in the document (beyond the length: nothing to do).
    """
    document = 0
    last = documents
    while document < last:
        middle = (document + last + 1) // 2
        starts = tl.load(cu_seqlens + middle) // BLOCK + middle <= slot
        document = tl.where(starts, middle, document)
        last = tl.where(starts, last, middle - 1)
    start = tl.load(cu_seqlens + document)
    stop = tl.load(cu_seqlens + document + 1, mask=document < documents, other=0)
    length = tl.where(document < documents, stop, total) - start
    return document, start, length, (slot - start // BLOCK - document) * BLOCK


@triton.jit
def extent(cu_seqlens, document, documents):
    """A document's first row and its length, which is 0 for the rows after the last document."""
    start = tl.load(cu_seqlens + document)
    stop = tl.load(cu_seqlens + document + 1, mask=document < documents, other=0)
    return start, tl.where(document < documents, stop - start, 0)


@triton.jit
def visible(positions, keys, window, WINDOWED: tl.constexpr):
    """Whether queries at `positions` of their document see `keys` of it."""
    seen = positions >= keys
    if WINDOWED:
        seen = seen & (positions - keys < window)
    return seen


@triton.jit
def seen_keys(first, last, key_length, window, KEYS: tl.constexpr, WINDOWED: tl.constexpr):
    """The keys that queries at the positions `first` to `last` of their document see.

    Returns: start, full, ragged, stop. Every query sees all of the keys from `full` to `ragged`; all but `stop` are multiples
    of KEYS.
    """
    stop = tl.minimum(key_length, last + 1)
    start = 0
    full = 0
    if WINDOWED:
        start = tl.maximum(first - window + 1, 0) // KEYS * KEYS
        full = tl.minimum(tl.cdiv(tl.maximum(last - window + 1, 0), KEYS), tl.cdiv(tl.maximum(stop, 0), KEYS)) * KEYS
    ragged = tl.maximum(full, tl.maximum(first + 1, 0) // KEYS * KEYS)
    return start, full, ragged, stop


@triton.jit
def seeing_queries(first, last, shift, length, window, ROWS: tl.constexpr, WINDOWED: tl.constexpr):
    """The queries of a document that see its keys `first` to `last`; query number 0 stands at position `shift`.

    Returns: start, full, ragged, stop. Every query from `full` to `ragged` sees all of the keys; the distances of the first
    three are multiples of ROWS.
    """
    start = tl.maximum(first - shift, 0)
    stop = length
    limit = length
    if WINDOWED:
        stop = tl.minimum(length, last + window - shift)
        limit = tl.minimum(length, first + window - shift)
    blocks = tl.cdiv(tl.maximum(stop - start, 0), ROWS)
    full = start + tl.minimum(tl.cdiv(tl.maximum(last - shift - start, 0), ROWS), blocks) * ROWS
    ragged = full + tl.maximum(limit - full, 0) // ROWS * ROWS
    return start, full, ragged, stop
