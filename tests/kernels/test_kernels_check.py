"""The check passes what is right and finds what is wrong."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llmctl_kernels.cases import case, cases_of, linear_cross_entropy, swiglu
from llmctl_kernels.cases.case import TAIL, Large, last_rows
from llmctl_kernels.check import checks, measure
from llmctl_kernels.check.__main__ import main
from llmctl_kernels.names import KERNELS, KernelName

CPU = torch.device("cpu")
CHECKS = {"bf16 error", "fp32 error", "bf16 edge", "fp32 edge", "same bits twice", "compiled", "opcheck"}


@pytest.fixture
def few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kernels with one typical shape and one edge each."""
    head = [linear_cross_entropy.case(6, 16, 21), linear_cross_entropy.case(3, 8, 12, ignored=2.0)]
    gates = [swiglu.case(4, 24), swiglu.case(0, 8)]
    for module, (typical, edge) in ((linear_cross_entropy, head), (swiglu, gates)):
        monkeypatch.setattr(module, "typical", lambda small, found=typical: [found])
        monkeypatch.setattr(module, "edges", lambda small, device_type, found=edge: [found])


@pytest.mark.usefixtures("few_cases")
def test_right_kernels_pass_every_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--small", "--kernel", "linear_cross_entropy", "--kernel", "swiglu", "--json", str(tmp_path / "check.json")])
    record = json.loads((tmp_path / "check.json").read_text())
    assert code == 0, capsys.readouterr().out
    for kernel in ("linear_cross_entropy", "swiglu"):
        assert {entry["check"] for entry in record["checks"] if entry["kernel"] == kernel} == CHECKS
    assert "14 ok, 0 failed, 0 skipped" in capsys.readouterr().out


def wrong_value(right: Any) -> Any:
    return lambda gate, up: right(gate, up) * 1.01


def wrong_gradient(right: Any) -> Any:
    """Only the gradient is wrong, by 1 %."""

    def function(gate: Tensor, up: Tensor) -> Tensor:
        result = right(gate, up)
        return result.detach() + 1.01 * (result - result.detach())

    return function


def no_number(right: Any) -> Any:
    return lambda gate, up: right(gate, up) * float("nan")


def other_bits_each_time(right: Any) -> Any:
    return lambda gate, up: right(gate, up) + 1e-3 * torch.rand_like(up)


def broken(right: Any) -> Any:
    def function(gate: Tensor, up: Tensor) -> Tensor:
        raise ValueError("no such block size")

    return function


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (wrong_value, "fp32 error"),
        (wrong_gradient, "fp32 error"),
        (no_number, "bf16 error"),
        (other_bits_each_time, "same bits twice"),
        (broken, "compiled"),
    ],
)
@pytest.mark.usefixtures("few_cases")
def test_a_planted_fault_is_found(fault: Any, check: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import llmctl_kernels.swiglu as kernel

    monkeypatch.setattr(kernel, "swiglu", fault(kernel.plain_swiglu))
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)  # what it takes is not the point here
    assert main(["--small", "--kernel", "swiglu", "--json", str(tmp_path / "check.json")]) == 1
    failed = {
        entry["check"] for entry in json.loads((tmp_path / "check.json").read_text())["checks"] if entry["status"] == "FAILED"
    }
    assert check in failed


def test_a_kernel_that_cannot_be_imported_fails_and_the_others_are_still_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(kernel: str) -> None:
        raise ModuleNotFoundError(f"No module named {kernel!r}")

    monkeypatch.setattr(checks, "cases_of", gone)
    (outcome,) = checks.checks("swiglu", CPU, small=True)
    assert outcome.status == "FAILED"
    assert "No module named 'swiglu'" in outcome.why


def test_without_a_gpu_it_says_how_to_run_small_shapes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2
    said = capsys.readouterr().out
    assert "TRITON_INTERPRET=1 python -m llmctl_kernels.check --small" in said
    assert len(said.splitlines()) == 1


def large(fused: Any = None) -> Large:
    whole = swiglu.case(TAIL + 40, 8)
    whole = replace(whole, fused=fused or whole.plain)
    return Large(whole, swiglu.case(TAIL, 8), last_rows("gate", "up"), ("gate", "up"), memory=10**9)


def cut_off(gate: Tensor, up: Tensor) -> tuple[Tensor]:
    """The last row is never written, as where an offset wraps around."""
    result = swiglu.exact(gate, up)[0].clone()
    result[-1] = 0
    return (result,)


def test_large_problems_are_judged_by_their_last_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**10, 10**10))
    assert checks.last_rows_right(large(), CPU).passed
    assert not checks.last_rows_right(large(cut_off), CPU).passed


def test_large_problems_are_skipped_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**8, 10**10))
    outcome = checks.outcome("swiglu", "2^31 elements", "", lambda: checks.last_rows_right(large(), CPU))
    assert (outcome.status, outcome.why) == ("skipped", "takes 1 GiB, 0 are free")


@pytest.mark.parametrize("kernel", KERNELS)
def test_large_problems_pass_2_to_the_31_and_end_in_small_ones(kernel: KernelName) -> None:
    big = cases_of(kernel).large()
    generator: Any = None  # the meta device has none
    tensors = big.case.inputs(torch.device("meta"), torch.bfloat16, generator)
    first, tail = tensors[big.row_gradients[0]], big.tail(tensors)
    assert first.numel() > 2**31
    assert big.memory >= 2 * 2 * first.numel()  # at least the tensor and its gradient
    expected = big.tail_case.inputs(torch.device("meta"), torch.bfloat16, generator)
    assert {name: tensor.shape for name, tensor in tail.items()} == {name: tensor.shape for name, tensor in expected.items()}


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_is_planned_on_a_gpu_with_its_edges_and_a_large_problem(kernel: KernelName) -> None:
    planned = list(checks.plan(cases_of(kernel), CPU, small=False))
    assert {name for name, _, _ in planned} == CHECKS | {"2^31 elements"}
    assert any("no rows" in description for name, description, _ in planned if name == "bf16 edge")


def test_ratio_is_of_the_kernels_error_and_plain_torchs() -> None:
    truth = {"output 0": torch.ones(4, dtype=torch.float64)}
    plain, got = {"output 0": torch.full((4,), 1.01)}, {"output 0": torch.full((4,), 1.03)}
    ratio, where = measure.worst_ratio(got, plain, truth, floor=1e-6)
    assert ratio == pytest.approx(3, rel=1e-4)
    assert where == "output 0"


@pytest.mark.parametrize(("value", "ratio"), [(0.0, 0.0), (1e-9, float("inf")), (float("nan"), float("inf"))])
def test_zeros_have_to_be_zeros(value: float, ratio: float) -> None:
    zeros = {"d hidden": torch.zeros(3, dtype=torch.float64)}
    assert measure.worst_ratio({"d hidden": torch.full((3,), value)}, zeros, zeros, floor=0.1)[0] == ratio


def test_a_result_of_another_shape_is_wrong() -> None:
    truth = {"output 0": torch.zeros(3, 2)}
    ratio, where = measure.worst_ratio({"output 0": torch.zeros(3, 1)}, truth, truth, floor=0.1)
    assert (ratio, where) == (float("inf"), "output 0 has shape [3, 1]")


def test_documents_are_of_mixed_lengths_and_fill_the_tokens() -> None:
    lengths = case.document_lengths(65_536)
    assert sum(lengths) == 65_536
    assert lengths == case.document_lengths(65_536)
    assert min(lengths) < 400
    assert max(lengths) > 2000
