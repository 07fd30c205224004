"""What a training step costs: tokens a second, model FLOP/s, memory, and the parts of the step.

The steps are those of the training loop, with a learning rate of zero: every product and update is made, and no weight moves.
They are timed twice: as they are, and then a few with the device waited for around every part.
"""

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from llmctl import events
from llmctl.model.load import quieten
from llmctl.model.loss import base_model
from llmctl.preflight.flops import Work
from llmctl.runs.files import write_json
from llmctl.train.data import TrainingRows
from llmctl.train.devices import forget_peak_memory, name_of, peak_memory, peak_rate, wait_for
from llmctl.train.distributed import join_process_group, launched_rank, wait_for_all
from llmctl.train.engine import Engine
from llmctl.train.job import TrainJob
from llmctl.train.loop import accumulate
from llmctl.train.objective import CausalObjective
from llmctl.train.prefetch import Prefetch
from llmctl.train.run import assemble_model, engine_for

RESULT_FILE = "measured.json"
WARM_UP = 3  # steps that are made and not timed: compilation, caches, the optimizer's state
IN_PARTS = 5  # steps whose parts are timed


@dataclass(frozen=True, slots=True)
class Measured:
    """A stage's step on a machine. Seconds, bytes, tokens; FLOP counts forward and backward, not what is computed again."""

    stage: str
    device: str
    device_type: str
    """cuda or cpu."""
    ranks: int
    micro_batch: int
    batch_rows: int
    """Over all ranks."""
    seq_len: int
    precision: str
    zero_stage: int
    padding: float
    """Share of the tokens."""
    step_seconds: list[float]
    part_seconds: dict[str, float]
    """Of a step in which every part is waited for; mean."""
    memory_bytes: int
    """At most, on the rank that has most: allocated on the GPU, or resident on a CPU."""
    work: dict[str, Any] | None
    """The fields of `Work`; None: it could not be counted."""
    flops_per_token: float | None
    flops_per_token_by_rows: float | None
    """As though every row were one document."""
    peak_flops: float | None
    """FLOP/s of all ranks together at most."""
    peak_is: str
    """Where that number is from, or why there is none."""

    @property
    def step_tokens(self) -> int:
        return self.batch_rows * self.seq_len

    @property
    def tokens_per_second(self) -> float:
        return self.step_tokens / statistics.median(self.step_seconds)

    @property
    def middle_half(self) -> tuple[float, float]:
        """Tokens a second that a quarter of the steps stay below, and that a quarter exceed."""
        low, _, high = statistics.quantiles(self.step_seconds, n=4, method="inclusive")
        return self.step_tokens / high, self.step_tokens / low

    def share_of_peak(self, flops_per_token: float | None) -> float | None:
        """Model FLOPs utilisation (MFU; PaLM, arXiv 2204.02311, appendix B)."""
        if flops_per_token is None or self.peak_flops is None:
            return None
        return flops_per_token * self.tokens_per_second / self.peak_flops


def measure(job: TrainJob, steps: int) -> Measured:
    """Time `steps` steps of the job on this rank and the others of its group, after those that warm up.

    Raises:
        UserError: what the recipe asks for cannot be done on this machine.
        StageFailed: not even one row fits into its memory.
    """
    join_process_group()
    wait_for_all()
    quieten()
    rows = TrainingRows(job)
    model = assemble_model(job)
    work = work_of(model)  # while the weights are whole: ZeRO takes them apart
    engine, micro_batch = engine_for(job, model, rows)
    split = (micro_batch, engine.data_rank, engine.data_ranks, engine.device)
    seconds = timed_steps(engine, Prefetch(rows, *split, WARM_UP + steps), steps)
    memory = over_ranks(peak_memory(engine.device), torch.distributed.ReduceOp.MAX)
    parts = timed_parts(engine, Prefetch(rows, *split, steps=0), WARM_UP + steps)
    bfloat16 = in_bfloat16(engine.objective)
    peak, peak_is = peak_rate(engine.device, bfloat16)
    documents, padding = shown_documents(rows, range(WARM_UP, WARM_UP + steps))
    return Measured(
        stage=job.stage,
        device=name_of(engine.device),
        device_type=engine.device.type,
        ranks=engine.world_size,
        micro_batch=micro_batch,
        batch_rows=rows.steps.rows,
        seq_len=job.settings.seq_len,
        precision="bf16" if bfloat16 else "fp32",
        zero_stage=job.settings.zero_stage,
        padding=padding,
        step_seconds=seconds,
        part_seconds=parts,
        memory_bytes=int(memory),
        work=None if work is None else asdict(work),
        flops_per_token=None if work is None else work.flops_per_token(documents),
        flops_per_token_by_rows=None if work is None else work.flops_per_token({job.settings.seq_len: 1}),
        peak_flops=None if peak is None else over_ranks(peak, torch.distributed.ReduceOp.SUM),
        peak_is=peak_is,
    )


def measure_to(job: TrainJob, steps: int) -> None:
    """Measure as one of the ranks that another process waits for; the first leaves a file in the job's folder."""
    found = measure(job, steps)
    if launched_rank() == 0:
        write_json(job.path / RESULT_FILE, asdict(found))


def make_step(engine: Engine, data: Prefetch, step: int) -> None:
    accumulate(engine, data.step(step), signal_number=0)
    engine.step(0.0)


def timed_steps(engine: Engine, data: Prefetch, steps: int) -> list[float]:
    """Seconds of each step after those that warm up; nothing is waited for that the loop does not wait for itself."""
    marks: list[float] = []
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            wait_for(engine.device)
            forget_peak_memory(engine.device)
            marks.append(time.perf_counter())
        make_step(engine, data, step)
        if step >= WARM_UP:
            marks.append(time.perf_counter())
        events.progress("measuring", step + 1, WARM_UP + steps, "steps")
    return [end - start for start, end in pairwise(marks)]


class Stopwatch:
    """Seconds by part; what the device has still to do is waited for before and after."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def around(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, timed; what it would give piece by piece is made as a whole."""

        def timed(*arguments: Any) -> Any:
            wait_for(self.device)
            started = time.perf_counter()
            result = call(*arguments)
            if isinstance(result, Iterator):
                result = list(result)
            wait_for(self.device)
            self.seconds[part] += time.perf_counter() - started
            return result

        return timed

    @contextmanager
    def on(self, owner: object, method: str, part: str) -> Iterator[None]:
        """Time `owner.method` inside the block."""
        vars(owner)[method] = self.around(part, getattr(owner, method))
        try:
            yield
        finally:
            del vars(owner)[method]


def timed_parts(engine: Engine, data: Prefetch, first: int) -> dict[str, float]:
    """Seconds of a step by part, the mean over some steps from `first` on, none put together ahead. The output head makes its
    gradients in the forward pass; with several ranks the backward pass reduces gradients."""
    watch = Stopwatch(engine.device)
    with ExitStack() as stack:
        for owner, method, part in (
            (data, "step", "data"),
            (engine.objective, "forward", "forward"),
            (engine, "accumulate", "forward and backward"),
            (engine, "step", "optimizer"),
        ):
            stack.enter_context(watch.on(owner, method, part))
        whole = watch.around("step", make_step)
        for step in range(first, first + IN_PARTS):
            whole(engine, data, step)
    spent = {part: seconds / IN_PARTS for part, seconds in watch.seconds.items()}
    both = spent["forward and backward"]
    rest = spent["step"] - spent["data"] - both - spent["optimizer"]
    parts = {"data": spent["data"], "forward": spent["forward"], "backward": both - spent["forward"]}
    return parts | {"optimizer": spent["optimizer"], "rest": rest}


def shown_documents(rows: TrainingRows, steps: range) -> tuple[Counter[int], float]:
    """How many documents of each length (tokens, padding a document of its own) the rows of these steps hold, and the share of
    padding."""
    lengths: Counter[int] = Counter()
    real = 0
    for step in steps:
        for source, row in rows.of_step(step):
            lengths.update(rows.sources[source].row(row).lengths)
            real += sum(tokens for _, _, tokens in rows.sources[source].pieces(row))
    return lengths, 1 - real / sum(length * count for length, count in lengths.items())


def work_of(model: Any) -> Work | None:
    """What a token costs in `model`; None, with a warning, where it has parts that are not counted here."""
    config = base_model(model).config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["window"] * config.num_hidden_layers
    unknown = {*kinds} - {"full_attention", "sliding_attention", "window"}
    experts = [name for name, parameter in model.named_parameters() if parameter.ndim > 2]
    if unknown or experts:
        events.warn(f"FLOPs are not counted: {', '.join(unknown) or experts[0]} is no attention and no matrix that is known here")
        return None
    window = getattr(config, "sliding_window", None)
    head = base_model(model).get_output_embeddings().weight
    looked_up = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)} - {id(head)}
    matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in looked_up]
    return Work(
        sum(p.numel() for p in matrices if p.requires_grad),
        sum(p.numel() for p in matrices if not p.requires_grad),
        tuple(None if kind == "full_attention" else window for kind in kinds),
        config.num_attention_heads,
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
    )


def in_bfloat16(objective: CausalObjective) -> bool:
    return objective.autocast or any(p.dtype == torch.bfloat16 for p in objective.parameters())


def over_ranks(value: float, how: Any) -> float:
    number = torch.tensor(value, dtype=torch.float64)
    torch.distributed.all_reduce(number, op=how)
    return float(number)
