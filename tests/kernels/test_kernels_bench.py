"""The bench's arithmetic, its goals, and a run on the CPU."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from llmctl_kernels.bench import cpu, gpu, measure, rows
from llmctl_kernels.bench.__main__ import main
from llmctl_kernels.bench.goals import FA3_BACKWARD, FA3_FORWARD, LEAST_MOVED, Goal, goals
from llmctl_kernels.bench.rows import Ceilings, Row
from llmctl_kernels.cases import cases_of, linear_cross_entropy, lora_linear, packed_attention, qk_norm_rope, rms_norm, swiglu
from llmctl_kernels.cases.case import MODELS, Case, Unavailable, Work
from llmctl_kernels.names import KERNELS, KernelName

CPU = torch.device("cpu")


def counted_pairs(lengths: tuple[int, ...], window: int | None) -> int:
    """One by one: a query sees the keys of its document up to itself, at most `window`."""
    document = [index for index, length in enumerate(lengths) for _ in range(length)]
    pairs = 0
    for query in range(len(document)):
        for key in range(query + 1):
            pairs += document[key] == document[query] and (window is None or query - key < window)
    return pairs


@pytest.mark.parametrize("window", [None, 1, 4, 9, 100])
@pytest.mark.parametrize("lengths", [(13,), (5, 1, 0, 9), (), (4, 4)])
def test_attention_counts_the_pairs_that_documents_and_window_let_it_see(lengths: tuple[int, ...], window: int | None) -> None:
    pairs = counted_pairs(lengths, window)
    assert packed_attention.visible_pairs(lengths, window) == pairs
    work = packed_attention.work(lengths, heads=3, key_heads=1, head_size=8, window=window)
    assert work.operations_forward == pairs * 3 * 8 * 2 * 2  # multiply and add, scores and values
    assert work.operations_both == 3.5 * work.operations_forward


MEMORY_BOUND = [
    *(rms_norm.case(6, 10, form) for form in rms_norm.FORMS),
    qk_norm_rope.case(6, 3, 1, 8),
    qk_norm_rope.case(6, 4, 2, 8, rotated=4, by_head=True),
    swiglu.case(6, 10),
]


def bytes_of(*tensors: torch.Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("case", MEMORY_BOUND, ids=lambda case: f"{case.kernel} {case.description}")
def test_forward_moves_each_operand_and_result_once(case: Case) -> None:
    inputs = case.inputs(CPU, torch.bfloat16, torch.Generator())
    outputs = case.exact(**{name: tensor.float() for name, tensor in inputs.items()})
    assert case.work.bytes_forward == bytes_of(*inputs.values()) + sum(2 * output.numel() for output in outputs)


@pytest.mark.parametrize(
    ("case", "moved"),
    [
        (rms_norm.case(6, 10), 3 * 60 + 2 * 10),  # x, dy, dx; weight and its gradient
        (rms_norm.case(6, 10, "add_rms_norm"), 4 * 60 + 2 * 10),  # the sum, two gradients, one for both summands
        (rms_norm.case(6, 10, "rms_norm_add"), 3 * 60 + 2 * 10),  # the residual's gradient is the output's
        (swiglu.case(6, 10), 5 * 60),  # gate, up, the output's gradient, two gradients
    ],
    ids=lambda value: value.description if isinstance(value, Case) else str(value),
)
def test_backward_moves_each_operand_and_result_once(case: Case, moved: int) -> None:
    assert case.work.bytes_both - case.work.bytes_forward == 2 * moved


def test_products_count_two_operations_per_multiplication() -> None:
    head = linear_cross_entropy.work(rows=5, width=7, vocabulary=11)
    assert (head.operations_forward, head.operations_both) == (2 * 5 * 7 * 11, 3 * 2 * 5 * 7 * 11)
    adapted = lora_linear.work(rows=5, width=7, outputs=11, rank=2)
    assert adapted.operations_forward == 2 * 5 * (7 * 11 + 7 * 2 + 2 * 11)
    assert adapted.operations_both == 2 * 5 * (2 * 7 * 11 + 3 * (7 * 2 + 2 * 11))  # the frozen weight has no gradient


def test_rates_are_work_over_time_and_shares_are_of_the_ceiling() -> None:
    case = replace(swiglu.case(1, 1), work=Work(10**9, 3 * 10**9, 0, 0))
    row = Row("swiglu", "1B", "", "ours", "gpu", forward=1e-3, both=4e-3)
    rated = measure.rated(row, case, Ceilings(bytes_per_second=2e12, operations_per_second=1.0))
    assert (rated.unit, rated.forward_rate, rated.both_rate) == ("TB/s", 1.0, 0.75)
    assert rated.backward_rate == pytest.approx(2 / 3)
    assert (rated.forward_share, rated.both_share) == (0.5, 0.375)


@pytest.mark.parametrize("kernel", KERNELS)
def test_each_kernel_has_problems_of_each_model_and_size(kernel: KernelName) -> None:
    found = list(gpu.problems(kernel, list(MODELS), [8192, 65_536]))
    assert {(model, tokens) for model, tokens, _ in found if model in MODELS} == {(m, t) for m in MODELS for t in (8192, 65_536)}
    assert all(case.work.bytes_both > case.work.bytes_forward > 0 for _, _, case in found)
    assert cases_of(kernel).benchmarks(MODELS["1B"], 8192)[0].kernel == kernel


def test_what_cannot_run_says_so_in_its_row() -> None:
    stopwatch: Any = None
    row = Row("swiglu", "1B", "", "another", "gpu")
    chip = Ceilings(1.0, 1.0)

    def raising(error: Exception) -> Any:
        def load() -> Any:
            raise error

        return load

    notes = [
        gpu.attempted(swiglu.case(1, 1), raising(error), row, stopwatch, chip).note
        for error in (torch.OutOfMemoryError(), ModuleNotFoundError("liger"), Unavailable("too old"), ValueError("odd"))
    ]
    assert notes == ["out of memory", "not installed", "too old", "failed: ValueError: odd"]
    assert rows.line(replace(row, note=notes[0])).endswith(notes[0])


class Clock:
    """In place of a GPU's stopwatch: runs once, and says a millisecond."""

    def __init__(self, device: torch.device) -> None:
        self.flush = torch.empty(0, device=device)

    def median(self, function: Callable[[], object]) -> float:
        function()
        return 1e-3


def test_rows_of_a_gpu_are_of_every_implementation(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    for name, value in (("memory_allocated", 10), ("reset_peak_memory_stats", None), ("max_memory_allocated", 25)):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(linear_cross_entropy, "benchmarks", lambda model, tokens: [linear_cross_entropy.case(4, 8, 12)])
    clock: Any = Clock(device)
    found = list(gpu.gpu_rows("linear_cross_entropy", ["1B"], [4], clock, Ceilings(1e12, 1e12)))
    assert [row.implementation for row in found] == [gpu.OURS, gpu.PLAIN, gpu.COMPILED, "chunked torch", "Liger"]
    assert {(row.memory, row.forward, row.unit, row.note) for row in found[:4]} == {(15, 1e-3, "TFLOP/s", "")}
    assert all(len(rows.line(row)) == len(rows.heading()) for row in found[:4])


def head(implementation: str, device: str, both: float, memory: int) -> Row:
    return Row("linear_cross_entropy", "1B", "[8192, 2048]", implementation, device, both=both, memory=memory)


def by_text(found: list[Goal]) -> dict[str, Goal]:
    return {goal.text: goal for goal in found}


def test_goals_without_numbers_are_not_measured() -> None:
    without = [Row("linear_cross_entropy", "7B", "", gpu.PLAIN, "gpu", note="out of memory"), head(gpu.OURS, "gpu", 1.0, 100)]
    assert {goal.status for goal in goals(without)} == {"not measured"}


def test_goals_of_the_head_take_the_worst_shape() -> None:
    name = "linear + cross-entropy"
    measured = [head(gpu.PLAIN, "gpu", 1.0, 400), head(gpu.OURS, "gpu", 1.04, 100), head("Liger", "gpu", 1.2, 100)]
    found = by_text(goals(measured))
    assert found[f"{name}: at most 1/4 of plain torch's memory"].status == "met"
    assert found[f"{name}: at least 95 % of plain torch's speed"].status == "met"
    assert found[f"{name}: faster than Liger-Kernel"].status == "met"
    assert found[f"{name} on a CPU: not slower than plain torch"].status == "not measured"
    other = [replace(head(gpu.PLAIN, "gpu", 1.0, 400), model="7B"), replace(head(gpu.OURS, "gpu", 1.1, 120), model="7B")]
    found = by_text(goals(measured + other))
    memory = found[f"{name}: at most 1/4 of plain torch's memory"]
    assert (memory.status, memory.worst) == ("missed", 0.3)
    assert memory.where.startswith("7B")
    assert found[f"{name}: at least 95 % of plain torch's speed"].status == "missed"


def test_goals_on_the_cpu() -> None:
    found = by_text(goals([head(cpu.PLAIN, "cpu", 1.0, 400), head(cpu.CHUNKED, "cpu", 1.1, 90)]))
    assert found["linear + cross-entropy on a CPU: at most 1/4 of plain torch's memory"].status == "met"
    assert found["linear + cross-entropy on a CPU: not slower than plain torch"].status == "missed"


@pytest.mark.parametrize(("share", "status"), [(0.6, "met"), (0.59, "missed")])
def test_goals_of_attention_are_of_the_published_rates(share: float, status: str) -> None:
    row = Row("packed_attention", gpu.PUBLISHED, "", gpu.OURS, "gpu")
    row = replace(row, forward_rate=share * FA3_FORWARD, backward_rate=share * FA3_BACKWARD)
    found = [goal.status for goal in goals([row]) if goal.text.startswith("attention")]
    assert found == [status, status]


def test_goals_of_bandwidth_leave_out_problems_that_are_over_too_soon() -> None:
    row = Row("swiglu", "7B", "", gpu.OURS, "gpu", forward_share=0.9, both_share=0.81, moved=LEAST_MOVED)
    soon = replace(row, model="190M", forward_share=0.3, moved=LEAST_MOVED - 1)
    name = "swiglu: at least 80 % of a copy's bandwidth"
    assert by_text(goals([row, soon]))[name].status == "met"
    assert by_text(goals([row, replace(row, both_share=0.7)]))[name].status == "missed"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    sizes = {"ROWS": 1024, "WIDTH": 16, "VOCABULARIES": (20_000,), "DTYPES": (torch.float32,), "REPETITIONS": 1}
    for name, value in sizes.items():
        monkeypatch.setattr(cpu, name, value)


@pytest.mark.usefixtures("tiny")
def test_on_a_cpu_the_head_is_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", str(tmp_path / "bench.json")]) == 0
    record = json.loads((tmp_path / "bench.json").read_text())
    assert set(record) == {"hardware", "versions", "date", "ceilings", "rows", "goals"}
    assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert [(row["implementation"], row["dtype"]) for row in record["rows"]] == [(cpu.CHUNKED, "float32"), (cpu.PLAIN, "float32")]
    assert all(row["both"] > 0 and row["forward"] > 0 for row in record["rows"])
    chunked, plain = (row["memory"] for row in record["rows"])
    logits = 1024 * 20_000 * 4
    assert plain > logits
    assert chunked < plain / 2
    said = capsys.readouterr().out
    assert "not slower than plain torch" in said
    assert "not measured  attention" in said


@pytest.mark.usefixtures("tiny")
def test_kernels_that_need_a_gpu_are_not_measured_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--kernel", "swiglu"]) == 2
    assert "only linear_cross_entropy" in capsys.readouterr().out
