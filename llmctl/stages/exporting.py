"""`llmctl export`: a checkpoint as others take it, a Hugging Face folder with a model card, or a GGUF file."""

import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from llmctl import events
from llmctl.errors import StageFailed, UserError, require_package
from llmctl.recipe.strangers import unsafe_files
from llmctl.runs.artifact import Artifact
from llmctl.runs.files import read_json, sha256_file, staged_file, staged_folder, write_json, write_text
from llmctl.runs.store import RunStore, default_root
from llmctl.stages.card import ancestry, base_models, card
from llmctl.stages.session import find_or_newest

Form = Literal["safetensors", "gguf"]
Kind = Literal["f32", "f16", "bf16", "q8_0"]
CARD = "README.md"
LEAST_SHARE = 0.8
"""Of a quantised file's likeliest next tokens that must be the model's own: measured are 0.97 and more, and a file that is read
wrongly has next to none."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for on the command line."""

    form: Form | None = None
    kind: Kind | None = None
    check: bool | None = None
    """Whether llama.cpp opens the GGUF and is compared; None: where its package is installed."""
    name: str | None = None
    author: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    folder: Path
    owner: Artifact | None
    """The finished artifact that the model belongs to."""

    @property
    def name(self) -> str:
        return f"{self.owner.run}-{self.owner.stage}" if self.owner is not None else self.folder.resolve().name

    def expected(self, file: str) -> str | None:
        """sha256 of a file of the model by the manifest; None: there is none, or it does not name the file."""
        if self.owner is None:
            return None
        inside = self.folder.resolve().relative_to(self.owner.folder.resolve()) / file
        return (self.owner.manifest["files"].get(str(inside)) or {}).get("sha256")

    def check(self, file: str, copy: Path) -> None:
        """Raises:
        StageFailed: the bytes are not those that the stage left.
        """
        wanted = self.expected(file)
        if wanted is not None and sha256_file(copy) != wanted:
            raise StageFailed(
                f"{self.folder / file}: its bytes have changed since the stage left it (sha256 differs from the manifest's); "
                f"`llmctl verify {self.owner.run if self.owner else ''}` tells which files did"
            )


def export_checkpoint(checkpoint: str, target: Path, wish: Wish, run: str | None, runs: Path | None) -> None:
    """Write the model that `checkpoint` means (with `run`, of that run) to `target`. Whole or not at all.

    Raises:
        UserError: there is no such checkpoint, the target is there already, or the model cannot be written in that form.
        StageFailed: its files have changed since they were made, or llama.cpp makes something else of the GGUF file.
    """
    form = wish.form or ("gguf" if target.suffix == ".gguf" else "safetensors")
    source = find_source(f"{run}/{checkpoint}" if run is not None else checkpoint, runs)
    if form == "gguf":
        export_gguf(source, target, wish)
        return
    if wish.kind == "q8_0":
        raise UserError("--type q8_0: only GGUF files are quantised so; take --format gguf, or one of f32, f16, bf16")
    if wish.check:
        raise UserError("--check: only a GGUF file is opened by llama.cpp and compared")
    if target.suffix == ".gguf":
        raise UserError(f"{target}: the name of a GGUF file, and --format safetensors writes a folder")
    export_folder(source, target, wish)


def find_source(name: str, runs: Path | None) -> Source:
    from llmctl.model.average import local_folder

    store = RunStore(runs or default_root())
    found = find_or_newest(store, name)
    if found.endswith(".gguf"):
        raise UserError(f"{found}: a GGUF file already; export takes the model folder that it was made from")
    folder = local_folder(found)
    if wrong := unsafe_files(folder):
        raise UserError(f"{folder}: {wrong}")
    return Source(folder, store.owner(folder))


def export_folder(source: Source, target: Path, wish: Wish) -> None:
    """The model folder file by file, its weights cast if a type is asked for, and a model card, unless it brings one."""
    from llmctl.model.load import load_config
    from llmctl.tokens.tokenizer import load_tokenizer

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there already; remove it, or name another folder")
    config, tokenizer = load_config(str(source.folder)), load_tokenizer(str(source.folder))
    files = sorted(path.name for path in source.folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if wish.kind is not None and getattr(config, "quantization_config", None) is not None:
        raise UserError(f"{source.folder}: its weights are packed (quantised); leave --type out")
    with staged_folder(target) as aside:
        for done, file in enumerate(files, 1):
            if wish.kind is not None and file.endswith(".safetensors"):
                source.check(file, source.folder / file)
                cast_file(source.folder / file, aside / file, wish.kind)
            else:
                shutil.copyfile(source.folder / file, aside / file)
                source.check(file, aside / file)
            events.progress("exporting", done, len(files), "files")
        if wish.kind is not None:
            note_type(aside, wish.kind)
        if CARD not in files:
            told = {f: f"weights{f' in {wish.kind}' if wish.kind else ''}" for f in files if f.endswith(".safetensors")}
            write_text(aside / CARD, card(wish.name or source.name, source.owner, config, tokenizer, told))
    checked = ", hashes as in the manifest" if source.owner is not None else ""
    weights = f"weights cast to {wish.kind}" if wish.kind else "weights as they are"
    events.say(
        f"{target}: {len(files)} files, {weights}{checked}; the model card is {target / CARD}, its licence is yours to set"
    )


def cast_file(source: Path, target: Path, kind: str) -> None:
    """A safetensors file with every floating-point tensor cast."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    wanted = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kind]
    tensors: dict[str, Any] = {}
    with safe_open(str(source), framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118  (no mapping)
            tensor = opened.get_tensor(name)
            cast = tensor.to(wanted) if tensor.is_floating_point() else tensor
            if tensor.is_floating_point() and tensor.isfinite().all() and not cast.isfinite().all():
                raise UserError(f"{source}: {name} has weights too large for {kind}; take --type bf16")
            tensors[name] = cast
    save_file(tensors, target, metadata={"format": "pt"})


def note_type(folder: Path, kind: str) -> None:
    """The weights' type in config.json and, where there is one, their bytes in the index of the files."""
    name = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}[kind]
    config = read_json(folder / "config.json")
    config.pop("torch_dtype", None)
    write_json(folder / "config.json", config | {"dtype": name})
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        content = read_json(index)
        content.get("metadata", {}).pop("total_size", None)
        write_json(index, content)


def export_gguf(source: Source, target: Path, wish: Wish) -> None:
    """TARGET, if it is the name of a .gguf file, or TARGET/NAME-TYPE.gguf with a model card beside it."""
    require_package("gguf", "writing a GGUF file")
    if wish.check:
        require_package("xllamacpp", "--check, which opens the file by llama.cpp,")
    from llmctl.model.gguf.write import About, Export

    kind: Kind = wish.kind or "f16"
    name = wish.name or source.name
    file = target if target.suffix == ".gguf" else target / f"{name.replace('/', '-')}-{kind.upper()}.gguf"
    if file.exists():
        raise UserError(f"{file} is there already; remove it, or name another file")
    for path in sorted(path.name for path in source.folder.iterdir() if path.is_file()):
        source.check(path, source.folder / path)
    export = Export(source.folder)
    about = about_of(source, name, wish.author, About)
    with staged_file(file) as aside:
        export.write(Path(aside.name), kind, about)
        told = compared(source.folder, export.tokenizer, Path(aside.name), kind) if wanted(wish.check) else NOT_OPENED
    events.say(f"{file}: {file.stat().st_size:,} bytes, {len(export.sources)} tensors, matrices in {kind}")
    events.say(told)
    if target.suffix != ".gguf" and not (target / CARD).exists():
        parts = {file.name: f"for llama.cpp, matrices in {kind}"}
        write_text(target / CARD, card(name, source.owner, export.config, export.tokenizer, parts))


NOT_OPENED = "the file was not opened by llama.cpp; with `pip install xllamacpp` llmctl export compares the two"


def wanted(check: bool | None) -> bool:
    return find_spec("xllamacpp") is not None if check is None else check


def about_of(source: Source, name: str, author: str | None, about: Any) -> Any:
    owner = source.owner
    if owner is None:
        return about(name, author=author)
    made_of = ancestry(owner)
    known = {"run": owner.run, "stage": owner.stage, "key": owner.key, "output_hash": owner.output_hash}
    line = " -> ".join(one.name for one in made_of)
    return about(name, f"Made by llmctl: {line}", author, known, tuple(base_models(made_of)))


def compared(folder: Path, tokenizer: Any, file: Path, kind: Kind) -> str:
    """What llama.cpp made of the file, in a sentence.

    Raises:
        StageFailed: other tokens of a text, or other likeliest next tokens than rounding to the type explains.
    """
    from llmctl.model.gguf.check import compare
    from llmctl.model.load import load_model

    found = compare(load_model(str(folder)).eval(), tokenizer, file)
    share = found.equal / found.next_tokens
    if found.split_wrong is not None:
        raise StageFailed(f"llama.cpp splits a text into other tokens ({found}), so nothing was written: {found.split_wrong!r}")
    if share < LEAST_SHARE if kind == "q8_0" else not found.right(kind):
        raise StageFailed(f"llama.cpp computes something else than the model, so nothing was written: {found}")
    return f"opened by llama.cpp: {found}"
