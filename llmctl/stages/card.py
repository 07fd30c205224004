"""README.md of an exported model: what it is made of, what it scored, how it is asked. A model card of the hub."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmctl.recipe.check import looks_like_hub_name
from llmctl.runs.artifact import OF_THE_WORK, Artifact
from llmctl.runs.store import RunStore

EXAMPLE = [{"role": "user", "content": "What is a tokenizer?"}]
SCORES = 40
"""Rows of a table; of more the first are shown."""


def card(name: str, artifact: Artifact | None, config: Any, tokenizer: Any, files: dict[str, str]) -> str:
    """Markdown with the hub's front matter. `artifact`: whose model it is, None: one that llmctl did not make.
    `files`: what each of the model's files is, by name."""
    made_of = ancestry(artifact) if artifact is not None else []
    bases = base_models(made_of)
    parts = [
        front_matter(config, files, [base for base in bases if looks_like_hub_name(base)]),
        f"# {name}",
        introduction(config, bases),
        *(["## Lineage", *lineage(made_of), software(made_of[-1])] if made_of else [UNKNOWN]),
        *scores(artifact),
        "## Use",
        *use(tokenizer, files),
        "## Licence",
        "Not chosen yet: set `license` at the top, as the texts and the base model that it is made of allow.",
    ]
    return "\n\n".join(parts) + "\n"


UNKNOWN = "No record of how it was made came with the model."


def ancestry(artifact: Artifact) -> list[Artifact]:
    """The finished artifacts that a model is made of, and it itself, oldest first."""
    store = RunStore(artifact.folder.parent.parent)
    found: dict[Path, Artifact] = {}
    queue = [artifact]
    while queue:
        one = queue.pop()
        if one.folder not in found and one.done:
            found[one.folder] = one
            queue += store.parents(one).values()
    return sorted(found.values(), key=lambda one: one.manifest["ended"])


def base_models(made_of: list[Artifact]) -> list[str]:
    """Models from outside that stages started from: hub names, and of paths the last part, which says nothing of a machine."""
    found = []
    for artifact in made_of:
        stage = artifact.manifest["recipe"].get("stage") or {}
        starts = [stage.get("from"), *(stage.get("of") or [])]
        found += [start for start in starts if start is not None and start not in artifact.manifest["parents"]]
        named = [row["checkpoint"] for row in checkpoints(artifact.manifest["recipe"])]
        found += [name for name in named if Path(name).is_absolute()]  # others are artifacts
    return list(dict.fromkeys(map(shown, found)))


def checkpoints(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """Of `llmctl merge` the base, of `llmctl average` all."""
    return [*([recipe["base"]] if "base" in recipe else []), *recipe.get("checkpoints", [])]


def shown(name: str) -> str:
    """The hub's name of a model, also of one in the hub's cache; of other paths the last part."""
    cached = re.search(r"/models--([^/]+)--([^/]+)/snapshots/[^/]+$", name)
    if cached:
        return f"{cached[1]}/{cached[2]}"
    return name if looks_like_hub_name(name) else Path(name).name


def front_matter(config: Any, files: dict[str, str], bases: list[str]) -> str:
    form = "gguf" if any(name.endswith(".gguf") for name in files) else "transformers"
    lines = ["---", "# license: choose one"]
    lines += [f"library_name: {form}", "pipeline_tag: text-generation"]
    if bases:
        lines += ["base_model:", *(f"- {json.dumps(base)}" for base in bases)]
    return "\n".join([*lines, "tags:", "- llmctl", f"- {config.model_type}", "---"])


def introduction(config: Any, bases: list[str]) -> str:
    from llmctl.model.build import body_parameters

    size = f"{body_parameters(config):,} parameters beside its input embedding, {config.num_hidden_layers} layers"
    shape = f"{size}, vocabulary {config.vocab_size:,}, context {config.max_position_embeddings:,} tokens"
    started = f" It starts from {', '.join(bases)}." if bases else ""
    return f"A causal language model of the {config.model_type} architecture: {shape}.{started}"


def lineage(made_of: list[Artifact]) -> Iterator[str]:
    rows = ["| stage | facts | key |", "|---|---|---|"]
    rows += [f"| {one.stage} | {'; '.join(facts(one))} | `{one.key}` |" for one in made_of]
    yield "\n".join(rows)


def facts(artifact: Artifact) -> Iterator[str]:
    """What a reader asks of a stage: tokens, mix, lengths, how it was tuned; of text and tokenizer, how much."""
    manifest = artifact.manifest
    metrics, recipe = manifest["metrics"], manifest["recipe"]
    if manifest["kind"] == "corpus":
        for source, counts in metrics.items():
            if isinstance(counts, dict) and "train_documents" in counts:
                yield f"{source}: {counts['train_documents']:,} documents, {counts['train_bytes']:,} bytes"
    if "vocabulary" in metrics:
        yield f"{metrics['vocabulary']:,} tokens"
    tokens = {key.removeprefix("tokens/"): count for key, count in metrics.items() if key.startswith("tokens/")}
    if tokens:
        yield f"{sum(tokens.values()):,} tokens ({', '.join(f'{name} {count:,}' for name, count in tokens.items())})"
    stage = recipe.get("stage") or {}
    named = {"seq_len": "rows of {:,} tokens", "batch_tokens": "batches of {:,} tokens", "lr": "learning rate {:g}"}
    yield from (text.format(stage[key]) for key, text in named.items() if stage.get(key))
    if stage.get("optimizer"):
        yield str(stage["optimizer"])
    for row in checkpoints(recipe) + recipe.get("adapters", []):
        share, name = f"{row['weight']:.4g} x " if "weight" in row else "", row.get("adapter") or row["checkpoint"]
        yield share + (shown(name) if Path(name).is_absolute() else name)
    if manifest["seconds"] >= 1:
        yield f"{manifest['seconds']:,.0f} s"


def software(artifact: Artifact) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in artifact.manifest["versions"].items())
    gpus = artifact.manifest["hardware"].get("gpus") or []
    where = f"{len(gpus)} GPU(s)" if gpus else f"{artifact.manifest['hardware'].get('cores')} CPU cores"
    return f"Run `{artifact.run}`. The last stage ran on {where} with {versions}."


def scores(artifact: Artifact | None) -> Iterator[str]:
    """Tables of the stage's own numbers, and of those of the run's finished evaluations of this very model."""
    if artifact is None:
        return
    tables = {f"{artifact.stage}'s own": numbers(artifact.manifest["metrics"])}
    for other in sorted(artifact.folder.parent.glob("eval*-*/manifest.json")):
        manifest = Artifact(other.parent).manifest
        if (manifest["parents"].get(artifact.stage) or {}).get("key") == artifact.key:
            own = {k.split("/", 1)[1]: v for k, v in manifest["metrics"].items() if k.startswith(f"{artifact.stage}/")}
            tables[f"evaluation {other.parent.name}"] = numbers(own)
    if not any(tables.values()):
        return
    yield "## Scores"
    for title, values in tables.items():
        if values:
            rows = [f"| {name} | {value:.4g} |" for name, value in list(values.items())[:SCORES]]
            more = f"\n\n{len(values) - SCORES} more stand in the stage's manifest." if len(values) > SCORES else ""
            yield "\n".join([f"| {title} | |", "|---|---|", *rows]) + more


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if isinstance(value, int | float) and not name.startswith(OF_THE_WORK)}


def use(tokenizer: Any, files: dict[str, str]) -> Iterator[str]:
    from llmctl.tokens.template import render

    packed = [name for name in files if name.endswith(".gguf")]
    yield "\n".join(f"- `{name}`: {what}" for name, what in files.items())
    if packed:
        yield f'    llama-cli -m {packed[0]} -p "Once upon a time"'
    elif tokenizer.chat_template:
        yield fenced("python", LOAD + CHAT)
    else:
        yield fenced("python", LOAD + CONTINUE)
    if tokenizer.chat_template:
        yield "Its chat template writes a question so, and the answer follows:"
        yield fenced("text", render(tokenizer, EXAMPLE, prompt=True))


def fenced(language: str, text: str) -> str:
    fence = "````" if "```" in text else "```"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


LOAD = """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")  # this folder, or its name on the hub
model = AutoModelForCausalLM.from_pretrained("FOLDER")
"""
CHAT = """messages = [{"role": "user", "content": "What is a tokenizer?"}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**prompt, max_new_tokens=128)
print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1]:], skip_special_tokens=True))
"""
CONTINUE = """prompt = tokenizer("Once upon a time", return_tensors="pt", return_token_type_ids=False)
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=128)[0]))
"""
