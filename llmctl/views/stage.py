"""How a stage is shown and recorded while it works."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from llmctl.runs.artifact import Artifact
from llmctl.views.progress import metrics_writer, panel, state_writer


@contextmanager
def shown(artifact: Artifact) -> Iterator[None]:
    """The panel of a stage, its metrics file and its state file."""
    with ExitStack() as stack:
        stack.enter_context(panel(artifact.stage))
        stack.enter_context(metrics_writer(artifact.metrics_path))
        stack.enter_context(state_writer(artifact.set_state))
        yield


@contextmanager
def only_shown(artifact: Artifact) -> Iterator[None]:
    """The panel alone: nothing is written into the artifact."""
    with panel("eval"):
        yield
