"""The table of a lora stage: what does not go together is told before anything is made."""

from typing import Any

import pytest
from pydantic import ValidationError

from llmctl.recipe.chat_schema import LoraTable
from llmctl.recipe.check_training import check_adapter_table
from llmctl.recipe.schema import Recipe

NEEDED = {"name": "lora", "kind": "lora", "tokens": 1024, "seq_len": 64, "mix": {"talk": 1.0}}


def problems(**keys: Any) -> dict[str, str]:
    return dict(check_adapter_table(Recipe(name="small"), LoraTable.model_validate(NEEDED | keys)))


@pytest.mark.parametrize(
    ("keys", "key", "told"),
    [
        ({"rank": 3, "init": "orthogonal"}, "rank", "rank = 3 is odd"),
        ({"quantize": "nf4", "zero_stage": 3}, "quantize", "cut up by zero_stage = 3 are not supported"),
        ({"quantize": "nf4", "init": "pissa_niter_4"}, "init", "pissa_niter_4 takes a part out of the base's weights"),
    ],
)
def test_it_is_told(keys, key, told):
    found = problems(**keys)
    assert list(found) == [key]
    assert told in found[key]


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"rank": 4, "init": "orthogonal"},
        {"dora": True, "zero_stage": 3},
        {"quantize": "nf4", "zero_stage": 2, "rslora": True},
        {"init": "pissa_niter_16", "dora": True},
        {"targets": "all-linear"},
    ],
)
def test_what_goes_together_is_taken(keys):
    assert problems(**keys) == {}


def test_an_unknown_beginning_is_told_with_those_there_are():
    with pytest.raises(ValidationError, match="expected one of default, gaussian, orthogonal, pissa, olora, or pissa_niter_"):
        LoraTable.model_validate(NEEDED | {"init": "eva"})
