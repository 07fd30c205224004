"""What prompts have in common, found in their tokens: the beginning that many questions share, the trunk that the choices of one
share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from llmctl.evals.continuations import BranchScore, Fork, NotFinite, continuation_scores
from llmctl.evals.prompts import Pair

GROUP_COST = 64  # tokens: what one more pass through the model costs beside those that it reads
MOST_PARTINGS = 100


@dataclass(frozen=True, slots=True)
class Group:
    """Questions whose prompts begin alike."""

    prefix: int
    """Tokens that they share."""
    members: list[int]


def scores_of(model: Any, asked: Sequence[Sequence[Pair]], done: Callable[[int], None] | None = None) -> list[list[BranchScore]]:
    """The scores of what follows each prompt, question by question (`asked`: a prompt and a choice, for each choice). `done` is
    told how many questions are.

    Raises:
        NotFinite: the logits are no numbers at a question.
    """
    forks = [fork_of(pairs) for pairs in asked]
    found: list[list[BranchScore]] = [[] for _ in asked]
    count = 0
    for group in groups_of([fork.trunk for fork in forks]):
        prefix = forks[group.members[0]].trunk[: group.prefix]
        shorter = [Fork(forks[n].trunk[group.prefix :], forks[n].branches, forks[n].unscored) for n in group.members]
        try:
            scores = continuation_scores(model, prefix, shorter)
        except NotFinite as error:
            raise NotFinite(group.members[error.fork]) from None
        for number, of_question in zip(group.members, scores, strict=True):
            found[number] = of_question
        count += len(group.members)
        if done is not None:
            done(count)
    return found


def fork_of(pairs: Sequence[Pair]) -> Fork:
    """The trunk is what all prompts of a question begin with; where they differ, the rest of each stands in its branch."""
    wholes = [context + continuation for context, continuation in pairs]
    shared = min(len(context) for context, _ in pairs)
    for whole in wholes[1:]:
        shared = common(wholes[0], whole, shared)
    unscored = tuple(len(context) - shared for context, _ in pairs)
    return Fork(wholes[0][:shared], [whole[shared:] for whole in wholes], unscored if any(unscored) else ())


def groups_of(trunks: Sequence[list[int]]) -> list[Group]:
    """Questions in groups, so that few tokens are read: each group reads its prefix once, and a group of one has none.

    Sorted by their tokens, those with a long beginning in common are neighbours. Where neighbours have the least in common a
    group is parted, if its parts save more than the whole.
    """
    order = sorted(range(len(trunks)), key=lambda number: trunks[number])
    shared = [common(trunks[first], trunks[second], len(trunks[first])) for first, second in pairwise(order)]
    groups, _ = _parted(0, len(order), shared, MOST_PARTINGS)
    return [Group(min(shared[first : end - 1], default=0), order[first:end]) for first, end in groups]


def _parted(first: int, end: int, shared: list[int], partings: int) -> tuple[list[tuple[int, int]], int]:
    """Groups among the questions [first, end), and the tokens that they save."""
    if end - first < 2:
        return [(first, end)] * (end > first), -GROUP_COST * (end > first)
    least = min(shared[first : end - 1])
    whole = (end - first - 1) * least - GROUP_COST
    places = [place + 1 for place in range(first, end - 1) if shared[place] == least]
    if not partings or len(places) == end - first - 1:
        return [(first, end)], whole
    parts = [_parted(a, b, shared, partings - 1) for a, b in pairwise([first, *places, end])]
    saved = sum(of_part for _, of_part in parts)
    return ([group for groups, _ in parts for group in groups], saved) if saved > whole else ([(first, end)], whole)


def common(first: Sequence[int], second: Sequence[int], most: int) -> int:
    """How many tokens both begin with, at most `most`."""
    most = min(most, len(first), len(second))
    if first[:most] == second[:most]:
        return most
    return next(place for place in range(most) if first[place] != second[place])
