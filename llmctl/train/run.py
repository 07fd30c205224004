"""Run one training job on this rank: assemble the model, resume or start, train, leave the model and the trainer state."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmctl import events
from llmctl.errors import StageFailed
from llmctl.model.build import ModelShape, build_model
from llmctl.model.embeddings import resize_embeddings
from llmctl.model.load import check_vocabulary, load_model, new_model, save_model
from llmctl.model.lora import AdapterSettings, add_adapter, merge, on_original, save_adapter, trained_tensors
from llmctl.model.lora_linear import quicken
from llmctl.model.precision import multiplies_bfloat16
from llmctl.model.quantized import quantize_linear_layers, require_nf4
from llmctl.model.rope import RopeScaling, extend_context
from llmctl.runs.files import staged_folder
from llmctl.tokens.tokenizer import load_tokenizer
from llmctl.train import checkpoint
from llmctl.train.checkpoint import Position, SavedState
from llmctl.train.data import TrainingRows
from llmctl.train.deepspeed_engine import DeepSpeedEngine
from llmctl.train.distributed import agreed_maximum, device_of_this_rank, join_process_group, wait_for_all
from llmctl.train.engine import MEAN, Engine, ParameterState, settings_for_deepspeed
from llmctl.train.forecast import Forecast
from llmctl.train.fused import kernels_of
from llmctl.train.job import TrainJob
from llmctl.train.loop import LoopSettings, train
from llmctl.train.memory import OutOfMemory, memory_of, told
from llmctl.train.micro_batch import choose_micro_batch
from llmctl.train.objective import CausalObjective
from llmctl.train.optimizer import build_optimizer
from llmctl.train.prepare import compiles, prepare_for_training
from llmctl.train.profiling import FOLDER, profiled
from llmctl.train.schedule import Schedule
from llmctl.train.sequence import sequence_group
from llmctl.train.validation import Validation


def assemble_model(job: TrainJob, quantized: bool = True) -> nn.Module:
    """The model that the job starts from, fp32 on the CPU: built or loaded, context extended, adapter added. Where the frozen
    weights are to be `quantized`, they are packed on this rank's GPU.

    The same on every rank, and the same again when the trained weights are written.

    Raises:
        StageFailed: the frozen weights are to be packed, and there is no GPU.
    """
    settings = None if job.lora is None else AdapterSettings(**job.lora)
    packed = settings is not None and settings.quantize == "nf4" and quantized
    if packed:
        require_nf4()
    model = model_without_adapter(job)
    if packed:
        quantize_linear_layers(model, device_of_this_rank())
    return model if settings is None else add_adapter(model, settings, job.seed)


def model_without_adapter(job: TrainJob) -> nn.Module:
    if job.parent is not None:
        model = load_model(job.parent)
    elif job.shape_of is not None:
        model = new_model(job.shape_of, seed=job.seed)
    else:
        assert job.shape is not None
        model = build_model(ModelShape(**job.shape), seed=job.seed)
    if job.rope is not None:
        extend_context(model, RopeScaling(**job.rope), job.settings.seq_len)
    if job.vocabulary is not None:
        resize_embeddings(model, job.vocabulary)
    return model


def run_job(job_of: Callable[[], TrainJob]) -> None:
    """Train a job to its end on this rank. Goes on from the newest whole checkpoint if there is one.

    `job_of` is called once all ranks are together: rank 0 has written the job by then.

    Raises:
        Interrupted: told to stop; resumable.
        UserError: what the recipe asks for cannot be done with this data or on this machine.
    """
    join_process_group()
    wait_for_all()
    job = job_of()
    micro_batch = job.settings.micro_batch
    with memory_of("building or loading the model"):
        model = assemble_model(job)
    forecast = Forecast(job, model)
    weights = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    try:
        with memory_of("setting up model and optimizer"):
            engine, rows, micro_batch = set_up(job, model)
            del model
            position = _starting_position(job, engine)
        validation = Validation(engine, job, micro_batch)
        settings = loop_settings(job, micro_batch)
        with profiled_if_asked(job, engine, position) as after_step, forecast.against(engine, rows, micro_batch, position.step):
            position = train(engine, rows, settings, position, partial(_keep, job, engine), validation, after_step)
    except OutOfMemory as error:
        size, trained = sum(count for count, _ in weights), sum(count for count, wanted in weights if wanted)
        ranks = torch.distributed.get_world_size()
        raise StageFailed(told(error, job.settings, micro_batch, size, trained, ranks)) from None
    _leave(job, engine, position)


def profiled_if_asked(job: TrainJob, engine: Engine, position: Position) -> AbstractContextManager[Callable[[], None]]:
    """What the loop calls after a step; with `--profile` the first rank records a few."""
    if not job.profile or engine.rank > 0:
        return nullcontext(lambda: None)
    return profiled(job.path / FOLDER, job.steps - position.step, engine.device)


def loop_settings(job: TrainJob, micro_batch: int) -> LoopSettings:
    table = job.settings
    assert table.lr is not None
    return LoopSettings(
        job.steps,
        micro_batch,
        Schedule.of(table, job.steps),
        table.lr,
        job.seed,
        job.path / "checkpoints",
        table.checkpoint,
        table.eval.every_steps,
        table.skip_sigmas,
        table.max_rollbacks,
        table.early_stopping,
    )


def set_up(job: TrainJob, model: nn.Module) -> tuple[Engine, TrainingRows, int]:
    """Put a model that `assemble_model` made behind an engine."""
    rows = TrainingRows(job)
    check_vocabulary(model, load_tokenizer(job.tokenizer))
    engine, micro_batch = engine_for(job, model, rows)
    return engine, rows, micro_batch


def engine_for(job: TrainJob, model: nn.Module, rows: TrainingRows) -> tuple[Engine, int]:
    """What trains `model` as the job's table says, and the micro-batch."""
    table = job.settings
    device = device_of_this_rank()
    world_size = torch.distributed.get_world_size()
    bfloat16 = table.precision == "bf16" or (table.precision == "auto" and multiplies_bfloat16(device.type))
    sequence = sequence_group(table, model)
    kernels = kernels_of(table, device.type)
    if job.lora is not None:
        quicken(model, AdapterSettings(**job.lora), table.zero_stage, bfloat16, compiles(table), "lora_linear" in kernels)
    prepared = prepare_for_training(model.to(device), table, kernels)
    objective = CausalObjective(prepared, table.z_loss, bfloat16 and table.zero_stage == 0, device.type, sequence)
    micro_batch = table.micro_batch or choose_micro_batch(objective, rows, world_size, device)
    data_ranks = world_size // table.sequence_parallel
    accumulation = rows.steps.rows // (micro_batch * data_ranks)
    shared = "" if sequence is None else f" / {sequence.size} that share each row by {sequence.exchange}"
    events.say(
        f"{world_size} rank{'s' if world_size > 1 else ''}{shared} x micro-batch {micro_batch} x accumulation {accumulation} = "
        f"{rows.steps.rows} rows of {table.seq_len:,} tokens, ZeRO stage {table.zero_stage}, "
        f"{'bf16' if bfloat16 else 'fp32'} on {device.type}"
    )
    engine = DeepSpeedEngine(
        objective,
        build_optimizer(objective, table),
        settings_for_deepspeed(
            table.zero_stage, bfloat16, micro_batch, accumulation, table.max_grad_norm, table.offload_optimizer, job.deepspeed
        ),
        table.max_grad_norm,
        table.ema_decay,
    )
    return engine, micro_batch


def _starting_position(job: TrainJob, engine: Engine) -> Position:
    newest = checkpoint.newest_whole(job.path / "checkpoints")
    if newest is not None:
        saved = SavedState(newest)
        engine.load_state(saved.read, saved.position.optimizer_step)
        events.say(f"resumed from step {saved.position.step:,} of {job.steps:,}")
        return saved.position
    if job.moments is not None:
        # Olmo 3 carries the optimizer's moments into the next stage and starts steps and schedule anew.
        saved = SavedState(Path(job.moments))
        engine.load_state(lambda name: as_left(saved.read(name)), saved.position.optimizer_step)
        events.say("optimizer moments carried over from the parent")
        return Position(0, 0, saved.position.optimizer_step)
    return Position(0, 0, 0)


def as_left(state: ParameterState) -> ParameterState:
    """The state with the weight that the stage left as its model: the running mean, where there is one."""
    mean = state.pop(MEAN, None)
    return state if mean is None else state | {"weight": mean}


def _keep(job: TrainJob, engine: Engine, position: Position, name: str) -> None:
    """Write the model as it is now to `kept/NAME`, in the place of what was there."""
    folder = job.path / "kept" / name
    state = folder.with_name(f".{folder.name}.state")
    checkpoint.save(engine, state, position)
    if engine.rank == 0:
        events.say(f"the model of step {position.step:,} is kept in {folder}")
        write_model(job, state, folder)
        shutil.rmtree(state)
    if engine.world_size > 1:
        torch.distributed.barrier()


def _leave(job: TrainJob, engine: Engine, position: Position) -> None:
    """Write `trainer/` (all ranks) and `model/` (rank 0), then drop the checkpoints that led there. A stage that may end early
    leaves its best step, and not its last."""
    trainer, best = job.path / "trainer", job.path / "best"
    if engine.rank == 0 and trainer.exists():
        shutil.rmtree(trainer)
    if not _best_is_whole(job, engine, best):
        checkpoint.save(engine, trainer, position)
    elif engine.rank == 0:
        with staged_folder(trainer) as aside:
            shutil.copytree(best, aside, dirs_exist_ok=True)
        left = SavedState(trainer).position
        events.say(f"the model of step {left.step:,} is left, whose held-out loss {left.best:.3f} is the lowest")
    if engine.rank == 0:
        write_model(job, trainer, job.path / "model")
        for folder in ("checkpoints", "best"):
            shutil.rmtree(job.path / folder, ignore_errors=True)
    if engine.world_size > 1:
        torch.distributed.barrier()


def _best_is_whole(job: TrainJob, engine: Engine, best: Path) -> bool:
    """Whether a stage that may end early has its best step on disk. The first rank looks, and all have its answer."""
    if job.settings.early_stopping is None:
        return False
    wrong = checkpoint.problems(best) if engine.rank == 0 else []
    if wrong:
        events.warn(f"the best step is not there, and the last one is left: {'; '.join(wrong)}")
    return not agreed_maximum(engine, len(wrong))


def write_model(job: TrainJob, trainer: Path, folder: Path) -> None:
    """A Hugging Face folder with the weights of the trainer state; for LoRA merged, and `adapter/` beside it."""
    saved = SavedState(trainer)
    settings = None if job.lora is None else AdapterSettings(**job.lora)
    model: Any = assemble_model(job, quantized=False)
    trained = {name: as_left(saved.read(name))["weight"] for name in trained_tensors(model)}
    if settings is not None and settings.changes_base:
        start = {name: tensor.clone() for name, tensor in trained_tensors(model).items()}
        del model
        model = on_original(model_without_adapter(job), settings, start, trained)
    else:
        for name, parameter in trained_tensors(model).items():
            parameter.copy_(trained[name])
    tokenizer = load_tokenizer(job.tokenizer)
    if settings is not None:
        adapter = folder.with_name("adapter") if folder.name == "model" else folder.with_name(f"{folder.name}-adapter")
        save_adapter(model, adapter, tokenizer)
        model = merge(model)
    save_model(model, tokenizer, folder)
