"""Log-probabilities of the choices of questions: what they share goes through the model once.

The examples of a few-shot prompt are the same for all questions, and a question is the same for all its choices: with
three examples and four choices, nine tenths of the tokens.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmctl.evals.score import TOKENS_PER_PASS
from llmctl.model.branches import PADDING, TRUNK, Branches, branching_attention
from llmctl.model.loss import base_model, inputs_of
from llmctl.tokens.batch import of_sequences

LOGITS_AT_A_TIME = 512  # rows of the vocabulary: 100 MB at 50,000 tokens


class NotFinite(Exception):
    """The model's logits are no numbers at a fork."""

    def __init__(self, fork: int) -> None:
        super().__init__(f"logits that are no numbers at fork {fork}")
        self.fork = fork


@dataclass(frozen=True, slots=True)
class Fork:
    """A trunk of tokens and the branches that are scored after it, none empty."""

    trunk: list[int]
    branches: list[list[int]]
    unscored: tuple[int, ...] = ()
    """Tokens at the beginning of each branch that belong to its prompt, and are not scored; empty: none do."""

    @property
    def size(self) -> int:
        """Tokens that the model reads: the last one of a branch is only predicted."""
        return len(self.trunk) + sum(len(branch) - 1 for branch in self.branches)

    def first_scored(self, branch: int) -> int:
        return self.unscored[branch] if self.unscored else 0


@dataclass(frozen=True, slots=True)
class BranchScore:
    """Of the n scored tokens of a branch, given all that goes before them."""

    log_probabilities: np.ndarray
    """[n] nats"""
    likeliest: np.ndarray
    """[n] bool: whether no token is likelier. Where all are, greedy decoding writes the branch."""

    @property
    def total(self) -> float:
        return float(self.log_probabilities.sum())


def continuation_log_probabilities(
    model: Any, prefix: list[int], forks: list[Fork], tokens_per_pass: int = TOKENS_PER_PASS
) -> list[list[np.ndarray]]:
    """For each branch of each fork, the log-probabilities (nats) of its scored tokens, given all before them."""
    scores = continuation_scores(model, prefix, forks, tokens_per_pass)
    return [[branch.log_probabilities for branch in of_fork] for of_fork in scores]


@torch.no_grad()
def continuation_scores(
    model: Any, prefix: list[int], forks: Sequence[Fork], tokens_per_pass: int = TOKENS_PER_PASS
) -> list[list[BranchScore]]:
    """For each branch of each fork, the scores of its tokens.

    The prefix or every trunk has a token. `model` attends to packed documents (`use_packed_attention`): a prefix of any length
    goes through it without a [T, T] mask.

    Raises:
        NotFinite: the logits are no numbers.
    """
    base = base_model(model)
    body, head = getattr(base, base.base_model_prefix), base.get_output_embeddings()
    device = next(model.parameters()).device
    scores: list[list[BranchScore]] = [[] for _ in forks]
    seen, last = read_prefix(body, prefix, device) if prefix else (None, None)
    passes = batches(forks, len(prefix), tokens_per_pass)
    with branching_attention(model):
        for number, batch in enumerate(passes, start=1):
            chosen = [forks[index] for index in batch]
            tokens, branches = rows(chosen, len(prefix))
            if not tokens.shape[1]:  # single tokens after the prefix itself
                hidden = torch.empty(0, *last.shape[1:], device=device, dtype=last.dtype) if last is not None else None
            else:
                hidden = read_rows(body, tokens.to(device), branches.to(device), seen, last=number == len(passes))
            for index, found in zip(batch, score_rows(head, chosen, hidden, tokens.shape[1], last), strict=True):
                if not all(np.isfinite(branch.log_probabilities).all() for branch in found):
                    raise NotFinite(index)
                scores[index] = found
    return scores


def read_prefix(body: Any, prefix: list[int], device: torch.device) -> tuple[Any, Tensor]:
    """The cache of a model's decoder after `prefix`, and its last hidden state [1, D]."""
    out = body(**inputs_of(of_sequences([prefix]).to(device)), use_cache=True)
    return out.past_key_values, out.last_hidden_state[0, -1:].clone()


def read_rows(body: Any, tokens: Tensor, branches: Branches, seen: Any, last: bool) -> Tensor:
    """Hidden states [B * N, D] of rows [B, N] that follow what the cache `seen` holds; the `last` rows may use it up."""
    past = seen if last else copy.deepcopy(seen)
    if past is not None and len(tokens) > 1:
        past.batch_repeat_interleave(len(tokens))
    out = body(
        input_ids=tokens,
        position_ids=branches.positions,
        past_key_values=past,
        use_cache=past is not None,
        branches=branches,
    )
    return out.last_hidden_state.flatten(0, 1)


def score_rows(head: Any, forks: list[Fork], hidden: Tensor | None, width: int, last: Tensor | None) -> list[list[BranchScore]]:
    """Scores of the branches of forks whose rows of `width` tokens have the hidden states [B * N, D], after a prefix with the
    hidden state `last` [1, D]. The state at the end of a trunk, before all its branches, is made into logits once."""
    states: dict[int, int] = {}
    """Row of the logits by place in `hidden`; -1: the prefix's last."""
    wanted: list[tuple[int, int]] = []
    """Row of the logits and token, for every scored token."""
    for row, fork in enumerate(forks):
        at = row * width + len(fork.trunk)
        end = at - 1 if fork.trunk else -1
        for number, branch in enumerate(fork.branches):
            for place in range(fork.first_scored(number), len(branch)):
                before = at + place - 1 if place else end
                wanted.append((states.setdefault(before, len(states)), branch[place]))
            at += len(branch) - 1
    chances, likeliest = token_chances(head, list(states), wanted, hidden, last)
    found, done = [], 0
    for fork in forks:
        of_fork = []
        for number, branch in enumerate(fork.branches):
            count = len(branch) - fork.first_scored(number)
            of_fork.append(BranchScore(chances[done : done + count], likeliest[done : done + count]))
            done += count
        found.append(of_fork)
    return found


def token_chances(
    head: Any, places: list[int], wanted: list[tuple[int, int]], hidden: Tensor | None, last: Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability [n] of each `wanted` token, and whether it is the likeliest, from the hidden states at `places`."""
    parts = [states for states in (hidden, last) if states is not None]
    all_states = torch.cat(parts)
    index = torch.tensor([place if place >= 0 else len(all_states) - 1 for place in places], device=all_states.device)
    rows_of, tokens_of = (torch.tensor(column, device=all_states.device) for column in zip(*wanted, strict=True))
    chances = torch.empty(len(wanted), dtype=torch.float64, device=all_states.device)
    likeliest = torch.empty(len(wanted), dtype=torch.bool, device=all_states.device)
    for first in range(0, len(places), LOGITS_AT_A_TIME):
        logits = head(all_states[index[first : first + LOGITS_AT_A_TIME]]).float()
        here = ((rows_of >= first) & (rows_of < first + LOGITS_AT_A_TIME)).nonzero()[:, 0]
        row, token = rows_of[here] - first, tokens_of[here]
        chances[here] = (logits[row, token] - logits.logsumexp(-1)[row]).double()
        likeliest[here] = logits.argmax(-1)[row] == token
    return chances.cpu().numpy(), likeliest.cpu().numpy()


def rows(forks: Sequence[Fork], prefix: int) -> tuple[Tensor, Branches]:
    """Token ids [B, N], and where they stand: each trunk with its branches behind it, all of one length by padding."""
    longest = max(fork.size for fork in forks)
    tokens = torch.zeros(len(forks), longest, dtype=torch.long)
    positions = torch.full((len(forks), longest), prefix)
    branch = torch.full((len(forks), longest), PADDING)
    for row, fork in enumerate(forks):
        start, at = prefix + len(fork.trunk), len(fork.trunk)
        read = [*fork.trunk, *(token for one in fork.branches for token in one[:-1])]
        tokens[row, : len(read)] = torch.tensor(read)
        positions[row, :at] = torch.arange(prefix, start)
        branch[row, :at] = TRUNK
        for number, one in enumerate(fork.branches, start=1):
            count = len(one) - 1
            positions[row, at : at + count] = torch.arange(start, start + count)
            branch[row, at : at + count] = number
            at += count
    return tokens, Branches(prefix, positions, branch)


def batches(forks: Sequence[Fork], prefix: int, tokens_per_pass: int) -> list[list[int]]:
    """Indices of forks of like size that go through the model together, the prefix counted with each."""
    found: list[list[int]] = []
    for index in sorted(range(len(forks)), key=lambda i: forks[i].size):
        size = prefix + forks[index].size  # the longest so far, and so the width of the batch
        if found and (len(found[-1]) + 1) * size <= tokens_per_pass:
            found[-1].append(index)
        else:
            found.append([index])
    return found
