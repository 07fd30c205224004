"""How a stage is shown and recorded while it works."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from llmctl.recipe.schema import Recipe
from llmctl.runs.artifact import Artifact
from llmctl.stages.trackers import require_trackers
from llmctl.views.progress import Screen
from llmctl.views.records import log_writer, metrics_writer, state_writer
from llmctl.views.trackers import Tracked, track


def recorded_on(screen: Screen, recipe: Recipe | None = None) -> Callable[[Artifact], AbstractContextManager[None]]:
    """What is opened around the work of a stage: its part of the screen, its metrics file, its log, its state file, and the
    trackers of the recipe.

    Raises:
        UserError: a tracker is not installed, or W&B is to be sent to and knows no key.
    """
    if recipe is not None:
        require_trackers(recipe.tracking)

    @contextmanager
    def record(artifact: Artifact) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(screen.stage(artifact.stage))
            if recipe is not None and artifact.stage in recipe.stages:
                stack.enter_context(track(Tracked.of(artifact, recipe), recipe.tracking.to))
            stack.enter_context(metrics_writer(artifact.metrics_path))
            stack.enter_context(log_writer(artifact.log_path))
            stack.enter_context(state_writer(artifact.set_state))
            yield

    return record
