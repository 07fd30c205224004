"""What is told of a stage that failed."""

from contextlib import nullcontext

import pytest

from llmctl.errors import StageFailed
from llmctl.recipe.schema import Recipe
from llmctl.runs.state import status
from llmctl.runs.store import RunStore
from llmctl.stages.node import Context, Node, Outcome
from llmctl.stages.runner import Runner


def test_why_it_failed_is_kept_until_it_is_made_again(tmp_path):
    store, seen = RunStore(tmp_path), []

    def work(context: Context) -> Outcome:
        if not seen:
            raise StageFailed("the disk is on fire\nand more of it")
        seen.append(status(context.artifact))
        return Outcome([])

    runner = Runner(Recipe(name="own"), store, lambda artifact: nullcontext())
    node = Node("burn", "burn", 1, (), {}, work)
    with pytest.raises(StageFailed):
        runner.make_node(node, {})
    (artifact,) = store.newest_run().artifacts
    assert status(artifact) == "failed: the disk is on fire"
    seen.append("again")
    runner.make_node(node, {})
    assert seen[1:] == ["running"]
    assert status(artifact) == "done"
