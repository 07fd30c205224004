"""Feed-forward layers computed in tiles of tokens.

The inner activations `[T, F]` of a layer are never there in whole: each tile is computed again when its gradient is wanted
(TiledMLP of Arctic Long Sequence Training, arXiv 2506.13996). A tile has as many tokens as the layer is wide, so that what it
keeps, `[D, F]`, is as large as one of the weights, whose gradient has to have room anyway.

Torch's checkpoints do it here, and not DeepSpeed's TiledMLP (0.19.8). That is as right in fp32 under ZeRO 0 to 3, but it
recomputes outside of autocast, and its weights get no gradient where its input asks for none.

Under ZeRO 3 every tile gathers the weights: all ranks need as many tiles, and have them where they have as many tokens.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from llmctl.errors import UserError


def tile_tokens(hidden_size: int) -> int:
    """Tokens of a tile in a model of that width."""
    return hidden_size


def tile_feed_forward(layers: Any, hidden_size: int) -> None:
    """Let the `mlp` of every one of a decoder's blocks, `[1, N, hidden_size]` -> the same, compute tiles from now on.

    Raises:
        UserError: a block has none.
    """
    for layer in layers:
        mlp = getattr(layer, "mlp", None)
        if mlp is None:
            raise UserError(f"tiled_mlp: a {type(layer).__name__} has no feed-forward layer of the name `mlp`; leave the key out")
        mlp.forward = partial(in_tiles, mlp.forward, tile_tokens(hidden_size))


@torch.compiler.disable()  # traced, the loop over tiles would be unrolled, and compiled anew for every number of them
def in_tiles(forward: Any, width: int, hidden: Tensor) -> Tensor:
    """`forward`, which sees each token by itself, of `[1, N, D]` in tiles of at most `width` tokens.

    Raises:
        UserError: it gives something else than hidden states, as some mixtures of experts do, whose routing comes beside them.
    """
    tiles = hidden.split(width, dim=1)
    again = len(tiles) > 1 and torch.is_grad_enabled()
    made = [checkpoint(forward, tile, use_reentrant=False) if again else forward(tile) for tile in tiles]
    if not isinstance(made[0], Tensor):
        owner = type(getattr(forward, "__self__", forward)).__name__
        raise UserError(
            f"tiled_mlp: the feed-forward layer {owner} gives a {type(made[0]).__name__} and not hidden states alone, as "
            "some mixtures of experts do; leave the key out"
        )
    return torch.cat(made, dim=1)
