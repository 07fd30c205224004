"""How a stage is shown and recorded while it works."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from llmctl.runs.artifact import Artifact
from llmctl.views.progress import Screen, metrics_writer, state_writer


def recorded_on(screen: Screen) -> Callable[[Artifact], AbstractContextManager[None]]:
    """What is opened around the work of a stage: its part of the screen, its metrics file, its state file."""

    @contextmanager
    def record(artifact: Artifact) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(screen.stage(artifact.stage))
            stack.enter_context(metrics_writer(artifact.metrics_path))
            stack.enter_context(state_writer(artifact.set_state))
            yield

    return record
