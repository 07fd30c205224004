"""Mistakes in the tables of stages that train, and in how they fit the others."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from llmctl.recipe.chat_schema import ChatTable, LoraTable, TemplateName
from llmctl.recipe.graph import has_new_weights, parents_of
from llmctl.recipe.presets import resolve_model
from llmctl.recipe.schema import LongContextTable, Recipe, TrainTable

Problem = tuple[str, str]
"""(key of the stage's table, what is wrong with it)."""


def check_stage(recipe: Recipe, stage: TrainTable) -> Iterator[Problem]:
    if (stage.tokens is None) == (stage.epochs is None):
        yield "tokens", "set either tokens or epochs" + (", not both" if stage.tokens is not None else "")
    yield from check_steps(stage)
    if stage.optimizer == "muon" and stage.zero_stage > 0:
        yield (
            "optimizer",
            f"Muon needs whole matrices, and zero_stage = {stage.zero_stage} shards them into flat pieces; "
            'use zero_stage = 0, or optimizer = "adamw"',
        )
    if stage.offload_optimizer and stage.zero_stage == 0:
        yield "offload_optimizer", "ZeRO 1 to 3 keep optimizer states apart and can put them elsewhere; set zero_stage = 1, too"
    yield from check_sequence(recipe, stage)
    if stage.offload_activations and not stage.activation_checkpointing:
        yield "offload_activations", "what it offloads is what checkpoints keep; set activation_checkpointing = true, too"
    yield from check_moments(recipe, stage)
    if stage.infilling is not None:
        if isinstance(stage, ChatTable):
            yield "infilling", "infilling is for text, and this stage trains on conversations"
        for name in set(stage.infilling.sources) - {name for name in stage.mix if name in recipe.text_sources}:
            yield "infilling.sources", f"{name!r} is no text source in the mix of {', '.join(stage.mix)}"
    if isinstance(stage, ChatTable):
        yield from check_chat(stage)
    if isinstance(stage, LongContextTable):
        yield from check_context(recipe, stage)
    if isinstance(stage, LoraTable):
        yield from check_adapter_table(recipe, stage)


def check_adapter_table(recipe: Recipe, stage: LoraTable) -> Iterator[Problem]:
    if recipe.model is not None:
        hidden = resolve_model(recipe.model)["hidden_size"]
        if hidden and stage.rank > hidden:
            yield "rank", f"rank = {stage.rank} is larger than the model's width of {hidden}"
    if stage.init == "orthogonal" and stage.rank % 2:
        yield "rank", f'init = "orthogonal" takes half of its rows for each matrix, and rank = {stage.rank} is odd'
    if stage.quantize != "none":
        if stage.zero_stage == 3:
            yield (
                "quantize",
                f"weights packed as {stage.quantize} and cut up by zero_stage = 3 are not supported; use 2",
            )
        if stage.init.startswith("pissa") or stage.init == "olora":
            yield "init", f"{stage.init} takes a part out of the base's weights, which {stage.quantize} rounds anew; use another"


def check_chat(stage: ChatTable) -> Iterator[Problem]:
    if stage.packing != "best_fit":
        yield "packing", 'conversations go into rows whole: packing = "best_fit"'
    if not stage.document_boundaries:
        yield "document_boundaries", "a conversation never sees another one of its row; leave it out"
    names = get_args(TemplateName)
    if stage.template is not None and stage.template not in names and not Path(stage.template).is_file():
        near = difflib.get_close_matches(stage.template, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}, or name a Jinja file"
        yield "template", f"template = {stage.template!r}: no chat template of that name and no such file; {hint}"


def check_steps(stage: TrainTable) -> Iterator[Problem]:
    """The batch, how it grows, and what is counted in steps."""
    yield from check_schedule(stage)
    growing = stage.batch_warmup_from is not None
    if growing and (stage.batch_warmup_tokens is None or stage.batch_tokens is None):
        yield "batch_warmup_from", "the batch grows from there, and needs batch_tokens and batch_warmup_tokens beside it"
        return
    if stage.batch_tokens is None:
        return
    if stage.batch_tokens % stage.seq_len:
        nearest = max(1, round(stage.batch_tokens / stage.seq_len)) * stage.seq_len
        yield (
            "batch_tokens",
            f"batch_tokens = {stage.batch_tokens:,} is no multiple of seq_len = {stage.seq_len:,}; nearest is {nearest}",
        )
        return
    rows, first = stage.batch_tokens // stage.seq_len, stage.batch_tokens
    if stage.batch_warmup_tokens is not None:
        first = stage.batch_warmup_from or stage.batch_tokens // 8
        if first % stage.seq_len or first not in {stage.batch_tokens >> halvings for halvings in range(1, 64)}:
            yield (
                "batch_warmup_from" if growing else "batch_warmup_tokens",
                f"the first batch of {first:,} tokens is no multiple of seq_len = {stage.seq_len:,}, or not "
                f"batch_tokens = {stage.batch_tokens:,} halved some times",
            )
            return
    fewest = first // stage.seq_len
    shares = max(1, stage.processes // stage.sequence_parallel)
    if fewest % ((stage.micro_batch or 1) * shares):
        field = "processes" if stage.micro_batch is None else "micro_batch"
        of_each = "" if stage.micro_batch is None else f"{stage.micro_batch} rows on "
        batch = f"batch of {rows} rows" if fewest == rows else f"first batch of {fewest} rows"
        together = f", {stage.sequence_parallel} to a row," if stage.sequence_parallel > 1 else ""
        yield field, f"{of_each}{stage.processes} ranks{together} do not divide the {batch}"
    if stage.tokens is None:
        return
    steps = stage.steps.within_tokens(stage.tokens)
    if not steps:
        yield "tokens", f"tokens = {stage.tokens:,} is less than one step of {first:,} tokens"
    elif stage.warmup_steps > steps:
        yield "warmup_steps", f"warmup_steps = {stage.warmup_steps} is longer than the stage's {steps} steps"


def check_schedule(stage: TrainTable) -> Iterator[Problem]:
    if stage.warmup_steps and stage.warmup_tokens is not None:
        yield "warmup_tokens", "set either warmup_steps or warmup_tokens, not both"
    for key in ("warmup_tokens", "batch_warmup_tokens", "length_warmup_tokens", "stretch_from"):
        value = getattr(stage, key)
        if value is not None and stage.tokens is not None and value > stage.tokens:
            yield key, f"{key} = {value:,} is more than the stage's tokens = {stage.tokens:,}"
    if stage.length_warmup_tokens is not None and stage.seq_len not in {stage.length_warmup_from << k for k in range(1, 64)}:
        yield (
            "length_warmup_from",
            f"length_warmup_from = {stage.length_warmup_from:,} does not reach seq_len = {stage.seq_len:,} by doubling",
        )
    if stage.stretch_from is not None and stage.stretch_from >= (stage.schedule_tokens or 0):
        yield "stretch_from", "it stretches a schedule that was planned for schedule_tokens, which must be more than it"
    if stage.early_stopping is not None and stage.eval.every_steps is None:
        yield "early_stopping", "it goes by held-out loss: set every_steps in the stage's eval table"
    if stage.checkpoint.keep_best and stage.eval.every_steps is None:
        yield "checkpoint.keep_best", "the best is chosen by held-out loss: set every_steps in the stage's eval table"


def check_sequence(recipe: Recipe, stage: TrainTable) -> Iterator[Problem]:
    """How rows are shared out over ranks."""
    together = stage.sequence_parallel
    if stage.seq_len % together:
        yield "sequence_parallel", f"{together} ranks cannot share a row of seq_len = {stage.seq_len:,} tokens evenly"
    # Left out, the number of ranks is the command line's or a launcher's, which is known when the stage is made.
    if "processes" in stage.model_fields_set and stage.processes % together:
        yield "processes", f"processes = {stage.processes} is no multiple of sequence_parallel = {together}"
    if stage.sequence_exchange == "heads" and recipe.model is not None and has_new_weights(stage, recipe):
        heads = resolve_model(recipe.model)["kv_heads"]
        if heads and heads % together:
            yield (
                "sequence_exchange",
                f"sequence_parallel = {together} ranks cannot share the model's {heads} key and value heads; "
                'use sequence_exchange = "keys"',
            )


def check_moments(recipe: Recipe, stage: TrainTable) -> Iterator[Problem]:
    if not stage.carry_optimizer:
        return
    if isinstance(stage, ChatTable) and stage.add_tokens:
        yield "carry_optimizer", "add_tokens makes embeddings that the parent has no moments of; leave one of the two out"
    if isinstance(stage, LoraTable):
        yield "carry_optimizer", "an adapter's weights are new; there are no moments to carry over"
    for name in parents_of(stage, recipe):
        parent = recipe.stages[name]
        if isinstance(parent, TrainTable) and parent.optimizer != stage.optimizer:
            yield (
                "optimizer",
                f"optimizer = {stage.optimizer!r} cannot take over the moments of [{name}], which has {parent.optimizer!r}; "
                "use the same one, or carry_optimizer = false",
            )


def check_mix(recipe: Recipe, stage: TrainTable) -> Iterator[Problem]:
    if not stage.mix:
        yield (
            "mix",
            f"[{stage.name}] has no mix; write mix = {{ SOURCE = 1.0 }}, there are {', '.join(recipe.corpus.sources) or 'none'}",
        )
        return
    unknown = [name for name in stage.mix if name not in recipe.corpus.sources]
    for name in unknown:
        yield (
            f"mix.{name}",
            f"{name!r} is no source of [corpus.sources]; there are {', '.join(recipe.corpus.sources) or 'none'}",
        )
    if any(share <= 0 for share in stage.mix.values()) or abs(sum(stage.mix.values()) - 1) > 1e-3:
        yield (
            "mix",
            f"the shares {list(stage.mix.values())} sum to {sum(stage.mix.values()):.4g}; they must be positive and sum to 1",
        )
    if not isinstance(stage, ChatTable) and not recipe.text_sources and not unknown:
        yield "mix", f"[{stage.name}] is measured on held-out text, and no source is of text"
    wants_chat = isinstance(stage, ChatTable)
    for name in stage.mix:
        if name not in unknown and (recipe.corpus.sources[name].kind == "chat") != wants_chat:
            have, want = ("conversations", "text") if not wants_chat else ("text", "conversations")
            yield f"mix.{name}", f"source {name!r} holds {have}, and [{stage.name}] trains on {want}"


def check_context(recipe: Recipe, stage: LongContextTable) -> Iterator[Problem]:
    yield from check_long_documents(recipe, stage)
    if (stage.rope.method == "base") != (stage.rope.theta is not None):
        yield "rope.theta", 'method = "base" needs theta, the new base, and no other method has it'
    rope = stage.rope
    if rope.beta_fast <= rope.beta_slow:
        yield "rope.beta_fast", f"beta_fast = {rope.beta_fast:g} must be more than beta_slow = {rope.beta_slow:g}"
    if rope.high_frequency_factor <= rope.low_frequency_factor:
        low, high = f"low_frequency_factor = {rope.low_frequency_factor:g}", f"{rope.high_frequency_factor:g}"
        yield "rope.high_frequency_factor", f"high_frequency_factor = {high} must be more than {low}"
    parents = [recipe.stages[name] for name in parents_of(stage, recipe)]
    for parent in parents:
        length = getattr(parent, "seq_len", None)
        if length is None:
            continue
        original = stage.rope.original_length or length
        if stage.seq_len < length:
            yield "seq_len", f"seq_len = {stage.seq_len:,} is shorter than the parent's {length:,}"
        elif stage.rope.method not in ("none", "base") and original * stage.rope.factor < stage.seq_len:
            yield "rope.factor", stage.rope.too_short(original, stage.seq_len)


def check_long_documents(recipe: Recipe, stage: LongContextTable) -> Iterator[Problem]:
    for name in stage.long_mix:
        if name not in recipe.text_sources + recipe.token_sources:
            yield "long_mix", f"{name!r} is no source of text; there are {', '.join(recipe.text_sources) or 'none'}"
    if any(part <= 0 for part in stage.buckets.values()):
        yield "buckets", "the parts of the buckets must be positive; leave a bucket out that is to have none"
    if max(stage.bucket_edges) > stage.seq_len:
        yield "buckets", f"a bucket begins at {max(stage.bucket_edges):,} tokens, and a row has seq_len = {stage.seq_len:,}"
    if stage.drop_most_compressible + stage.drop_least_compressible >= 1:
        yield "drop_most_compressible", "drop_most_compressible and drop_least_compressible together leave no document"
    synthetic = stage.synthetic.cwe_share + stage.synthetic.rex_share
    if synthetic > stage.long_share + 1e-9:
        yield (
            "synthetic",
            f"cwe_share + rex_share = {synthetic:g} is more than long_share = {stage.long_share:g}, which they are part of",
        )
    if synthetic and stage.synthetic.generator.startswith(("http://", "https://")) and stage.synthetic.model is None:
        yield "synthetic.model", f"generator = {stage.synthetic.generator!r} is an endpoint; name the model that it is asked for"
