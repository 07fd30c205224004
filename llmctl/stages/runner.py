"""Make the nodes of a recipe: what is done is left alone, what was interrupted goes on, the rest is made."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from llmctl import events
from llmctl.errors import Interrupted, StageFailed
from llmctl.interrupts import arriving
from llmctl.recipe.schema import Recipe
from llmctl.runs.artifact import Artifact
from llmctl.runs.keys import content_key
from llmctl.runs.store import RunStore
from llmctl.stages.graph import build_graph, needed_for
from llmctl.stages.node import Context, Node

POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Runner:
    recipe: Recipe
    store: RunStore
    show: Callable[[Artifact], AbstractContextManager[object]]
    """Opened around the work of a node: the panel and the metrics file."""
    ranks: int | None = None
    """Ranks to start for the stages that train; None: as the recipe says."""
    rank: int = 0
    """Of this process among those of the launcher that started it."""
    profile: bool = False
    """Whether a few steps of what trains are recorded by torch's profiler."""

    def make(self, targets: list[str]) -> dict[str, Artifact]:
        """Make `targets` and what they need. Returns all their artifacts by node name."""
        made: dict[str, Artifact] = {}
        nodes = needed_for(build_graph(self.recipe), targets)
        for node in nodes:
            made[node.name] = self.make_node(node, made, wanted=node.name in targets)
        return made

    def to_make(self, targets: list[str]) -> dict[str, Artifact | None]:
        """What of `targets` and what they need is not done yet: by name, its artifact, as far as that is known."""
        done: dict[str, Artifact] = {}
        missing: dict[str, Artifact | None] = {}
        for node in needed_for(build_graph(self.recipe), targets):
            artifact = self.artifact(node, done) if all(name in done for name in node.parents) else None
            if artifact is not None and artifact.done:
                done[node.name] = artifact
            else:
                missing[node.name] = artifact
        return missing

    def make_node(self, node: Node, made: dict[str, Artifact], wanted: bool = True) -> Artifact:
        """Make one node from its parents' artifacts. `wanted`: it is what was asked for, and not only needed for that."""
        artifact = self.artifact(node, made)
        if artifact.done:
            events.say(f"{node.name}: done before, {artifact.folder}")
        else:
            if not wanted:
                events.say(f"{node.name} is not there yet and is made first")
            self._make(node, artifact, made)
        return artifact

    def artifact(self, node: Node, made: dict[str, Artifact]) -> Artifact:
        parents = {name: made[name].output_hash for name in node.parents}
        key = content_key(node.kind, node.version, node.identity, parents)
        return self.store.artifact(self.recipe.name, node.name, key)

    def _make(self, node: Node, artifact: Artifact, made: dict[str, Artifact]) -> None:
        parents = {name: made[name] for name in node.parents}
        context = Context(self.recipe, artifact, parents, self.ranks, self.profile)
        if self.rank > 0:
            if node.trains:
                node.work(context)
            self._wait_for_first_rank(artifact)
            return
        artifact.create()
        with artifact.lock():
            if artifact.done:  # made by another process while this one waited for its turn
                return
            started = time.time()
            try:
                with arriving():
                    made_of = [f"{parent.run}/{parent.name}" for parent in parents.values()]
                    artifact.set_state(status="running", kind=node.kind, parents=made_of, why=None)
                    with self.show(artifact):
                        outcome = node.work(context)
                    artifact.commit(
                        node.kind,
                        parents=context.parents,
                        recipe=node.identity,
                        outputs=outcome.outputs,
                        kept=outcome.kept,
                        metrics=outcome.metrics,
                        started=started,
                    )
            except BaseException as error:
                stopped = isinstance(error, Interrupted | KeyboardInterrupt)
                artifact.set_state(status="stopped" if stopped else "failed", why=None if stopped else str(error) or repr(error))
                raise
            artifact.set_state(status="done")

    def _wait_for_first_rank(self, artifact: Artifact) -> None:
        """Raises:
        StageFailed: rank 0 has failed or was stopped.
        """
        since = time.time()
        while not artifact.done:
            state = artifact.state
            if state.get("status") in ("failed", "stopped") and state["updated"] > since:
                raise StageFailed(f"{artifact.name}: rank 0 {state['status']}")
            time.sleep(POLL_SECONDS)
