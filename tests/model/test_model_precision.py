"""bfloat16 is used where the processor multiplies it, and nowhere else."""

import pytest
import torch

from llmctl.model.precision import multiplies_bfloat16


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx2": True, "avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({"neon": True}, False),
    ],
)
def test_a_cpu_is_asked_for_its_flags(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    multiplies_bfloat16.cache_clear()
    assert multiplies_bfloat16("cpu") is expected
    monkeypatch.undo()
    multiplies_bfloat16.cache_clear()
