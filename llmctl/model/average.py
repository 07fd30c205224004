"""The mean of several checkpoints' weights (model soups, arXiv 2203.05482), tensor by tensor: no model is in memory whole."""

import math
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.errors import UserError
from llmctl.model.load import load_config, set_token_ids
from llmctl.recipe.check import looks_like_hub_name
from llmctl.runs.files import expanded, read_json, staged_folder, write_json
from llmctl.tokens.tokenizer import load_tokenizer

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
NO_PART_OF_THE_SHAPE = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "bos_token_id", "eos_token_id",
                        "pad_token_id", "use_cache"}  # fmt: skip


class Weights:
    """The tensors of a model folder, read one at a time."""

    def __init__(self, folder: Path) -> None:
        """Raises:
        UserError: the folder has no weights in safetensors, or a file of theirs is missing or broken.
        """
        from safetensors import SafetensorError, safe_open

        self.folder = folder
        self._file_of: dict[str, Any] = {}
        for name in _files_of(folder):
            try:
                opened: Any = safe_open(str(folder / name), framework="pt")
            except (OSError, SafetensorError) as error:
                raise UserError(f"{folder / name}: no weights could be read: {error}") from None
            self._file_of |= dict.fromkeys(opened.keys(), opened)

    @property
    def names(self) -> list[str]:
        return sorted(self._file_of)

    def shape(self, name: str) -> list[int] | None:
        """None: there is no such tensor."""
        return self._file_of[name].get_slice(name).get_shape() if name in self._file_of else None

    def type_of(self, name: str) -> str:
        """As safetensors calls it: F32, BF16, F16 ..."""
        return self._file_of[name].get_slice(name).get_dtype()

    def read(self, name: str) -> Any:
        return self._file_of[name].get_tensor(name)


def _files_of(folder: Path) -> list[str]:
    if (folder / SINGLE).is_file():
        return [SINGLE]
    if not (folder / INDEX).is_file():
        raise UserError(f"{folder}: no weights in safetensors ({SINGLE}), the only kind that llmctl reads")
    return sorted(set(read_json(folder / INDEX)["weight_map"].values()))


def local_folder(name: str) -> Path:
    """A model folder as it is; of a hub name, the folder that it is downloaded to.

    Raises:
        UserError: it is neither.
    """
    folder = expanded(name)
    if (folder / "config.json").is_file():
        return folder
    if folder.exists() or not looks_like_hub_name(name):
        raise UserError(f"{name}: only model folders in Hugging Face's format and hub names are averaged")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]))
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: could not be downloaded: {str(error).splitlines()[0]}") from None


def normalised(weights: list[float]) -> list[float]:
    """Raises:
    UserError: a weight is negative or no number, or all are zero.
    """
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights):
        shown = ", ".join(f"{weight:g}" for weight in weights)
        raise UserError(f"weights {shown}: expected numbers from 0 on that are not all 0")
    return [weight / sum(weights) for weight in weights]


def write_average(folders: list[Path], weights: list[float], tokenizer: Any, out: Path) -> None:
    """Write `out`, the weighted mean of the models of `folders` in fp32 with `tokenizer`: the configuration is the first
    one's, and `weights` are normalised. Sums are taken in fp64 and rounded once. Whole or not at all.

    Raises:
        UserError: the models differ in a tensor's shape or in their vocabulary, or their weights are packed.
    """
    import torch
    from safetensors.torch import save_file

    shares = normalised(weights)
    opened = [Weights(folder) for folder in folders]
    config = checked_config(opened, tokenizer)
    shards = _shards(opened[0], bool(config.tie_word_embeddings))
    total, done = sum(map(len, shards)), 0
    config.dtype = torch.float32
    generation = set_token_ids(config, tokenizer)
    with staged_folder(out) as aside:
        places: dict[str, str] = {}
        for number, names in enumerate(shards, 1):
            file = SINGLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
            tensors: dict[str, Any] = {}
            for name in names:
                tensors[name] = mean_of([model.read(name) for model in opened], shares)
                done += 1
                events.progress("averaging", done, total, "tensors")
            save_file(tensors, aside / file, metadata={"format": "pt"})
            places |= dict.fromkeys(names, file)
        if len(shards) > 1:
            write_json(aside / INDEX, {"metadata": {}, "weight_map": places})
        config.save_pretrained(aside)
        generation.save_pretrained(aside)
        tokenizer.save_pretrained(aside)


def mean_of(tensors: list[Any], shares: list[float]) -> Any:
    """The weighted sum of tensors of one shape, taken in fp64, as fp32. Of what holds no weights (masks), the first one's."""
    import torch

    if not tensors[0].is_floating_point():
        return tensors[0]
    total = torch.zeros(tensors[0].shape, dtype=torch.float64)
    for tensor, share in zip(tensors, shares, strict=True):
        total.add_(tensor.double(), alpha=share)
    return total.float()


def checked_config(opened: list[Weights], tokenizer: Any) -> Any:
    """The first model's configuration, once all models are known to be alike.

    Raises:
        UserError: they are not.
    """
    first = opened[0]
    config = load_config(str(first.folder))
    vocabulary = tokenizer.get_vocab()
    for model in opened:
        theirs = load_config(str(model.folder))
        if getattr(theirs, "quantization_config", None) is not None:
            raise UserError(f"{model.folder}: its weights are packed (quantised), and packed weights have no mean")
        if theirs.model_type != config.model_type:
            raise UserError(f"{model.folder} is a {theirs.model_type}, and {first.folder} is a {config.model_type}")
        check_shapes(first, model, bool(config.tie_word_embeddings))
        if load_tokenizer(str(model.folder)).get_vocab() != vocabulary:
            raise UserError(f"{model.folder} has a tokenizer of another vocabulary than {first.folder}: they have no mean")
        different = _different(config.to_dict(), theirs.to_dict())
        if different:
            keeps = f"the average has what the first has ({first.folder})"
            events.warn(f"{model.folder} differs in {', '.join(different)} of its config.json; {keeps}")
    return config


def check_shapes(first: Weights, other: Weights, tied: bool) -> None:
    """Raises:
    UserError: a tensor is missing in one of the two, or of another shape.
    """
    for name in sorted({*first.names, *other.names}):
        here, there = first.shape(name), other.shape(name)
        if here != there and not _tied_copy(name, tied):
            sizes = [str(shape) if shape is not None else "not there" for shape in (there, here)]
            raise UserError(
                f"{other.folder} is of another shape than {first.folder}: {name} is {sizes[0]}, and in the other {sizes[1]}"
            )


def _tied_copy(name: str, tied: bool) -> bool:
    """Whether a tensor is the input embedding once more, which some folders hold and others leave out."""
    return tied and name.endswith("lm_head.weight")


def _different(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    keys = sorted((ours.keys() | theirs.keys()) - NO_PART_OF_THE_SHAPE)
    return [key for key in keys if ours.get(key) != theirs.get(key)]


def _shards(model: Weights, tied: bool) -> list[list[str]]:
    """Names of tensors by the file that they go to."""
    shards: list[list[str]] = [[]]
    size = 0
    for name in model.names:
        if _tied_copy(name, tied):
            continue
        count = 4 * math.prod(model.shape(name) or [])
        if shards[-1] and size + count > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += count
    return shards
