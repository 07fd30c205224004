"""How a stage is shown and recorded while it works."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from llmctl.runs.artifact import Artifact
from llmctl.views.progress import Screen
from llmctl.views.records import log_writer, metrics_writer, require_tensorboard, state_writer, tensorboard_writer


def recorded_on(screen: Screen, tensorboard: bool = False) -> Callable[[Artifact], AbstractContextManager[None]]:
    """What is opened around the work of a stage: its part of the screen, its metrics file, its state file, and TensorBoard's.

    Raises:
        UserError: TensorBoard is asked for and not installed.
    """
    if tensorboard:
        require_tensorboard()

    @contextmanager
    def record(artifact: Artifact) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(screen.stage(artifact.stage))
            stack.enter_context(metrics_writer(artifact.metrics_path))
            stack.enter_context(log_writer(artifact.log_path))
            stack.enter_context(state_writer(artifact.set_state))
            if tensorboard:
                stack.enter_context(tensorboard_writer(artifact.folder / "tensorboard"))
            yield

    return record
