"""Log-probabilities of the choices of questions: what they share goes through the model once.

The examples of a few-shot prompt are the same for all questions, and a question is the same for all its choices: with
three examples and four choices, nine tenths of the tokens.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmctl.evals.score import TOKENS_PER_PASS
from llmctl.model.branches import PADDING, TRUNK, Branches, branching_attention
from llmctl.model.loss import base_model, inputs_of
from llmctl.tokens.batch import of_sequences


@dataclass(frozen=True, slots=True)
class Fork:
    """A trunk of tokens and the continuations that are scored after it, none empty."""

    trunk: list[int]
    choices: list[list[int]]

    @property
    def size(self) -> int:
        return len(self.trunk) + sum(map(len, self.choices))


@dataclass(frozen=True, slots=True)
class ChoiceScore:
    """Of a choice of n tokens, given all that goes before them."""

    log_probabilities: np.ndarray
    """[n] nats"""
    likeliest: np.ndarray
    """[n] bool: whether no token is likelier. Where all are, greedy decoding writes the choice."""


def continuation_log_probabilities(
    model: Any, prefix: list[int], forks: list[Fork], tokens_per_pass: int = TOKENS_PER_PASS
) -> list[list[np.ndarray]]:
    """For each choice of each fork, the log-probabilities (nats) of its tokens, given the prefix, the trunk and those before."""
    scores = continuation_scores(model, prefix, forks, tokens_per_pass)
    return [[choice.log_probabilities for choice in of_fork] for of_fork in scores]


@torch.no_grad()
def continuation_scores(
    model: Any, prefix: list[int], forks: list[Fork], tokens_per_pass: int = TOKENS_PER_PASS
) -> list[list[ChoiceScore]]:
    """For each choice of each fork, the scores of its tokens.

    The prefix or every trunk has a token. `model` attends to packed documents (`use_packed_attention`): a prefix of any length
    goes through it without a [T, T] mask.
    """
    base = base_model(model)
    body, head = getattr(base, base.base_model_prefix), base.get_output_embeddings()
    device = next(model.parameters()).device
    scores: list[list[ChoiceScore]] = [[] for _ in forks]
    seen, last = read_prefix(body, prefix, device) if prefix else (None, None)
    passes = batches(forks, len(prefix), tokens_per_pass)
    with branching_attention(model):
        for number, batch in enumerate(passes, start=1):
            tokens, branches = rows([forks[index] for index in batch], len(prefix))
            tokens, branches = tokens.to(device), branches.to(device)
            past = seen if number == len(passes) else copy.deepcopy(seen)
            if past is not None and len(batch) > 1:
                past.batch_repeat_interleave(len(batch))
            hidden = body(
                input_ids=tokens,
                position_ids=branches.positions,
                past_key_values=past,
                use_cache=past is not None,
                branches=branches,
            ).last_hidden_state
            for row, index in enumerate(batch):
                scores[index] = score_choices(head, forks[index], hidden[row], last)
    return scores


def read_prefix(body: Any, prefix: list[int], device: torch.device) -> tuple[Any, Tensor]:
    """The cache of a model's decoder after `prefix`, and its last hidden state [1, D]."""
    out = body(**inputs_of(of_sequences([prefix]).to(device)), use_cache=True)
    return out.past_key_values, out.last_hidden_state[0, -1:].clone()


def score_choices(head: Any, fork: Fork, hidden: Tensor, last: Tensor | None) -> list[ChoiceScore]:
    """Scores of one row's choices from its hidden states [N, D] and the prefix's last one [1, D]."""
    trunk_end = hidden[len(fork.trunk) - 1 :][:1] if fork.trunk else last
    assert trunk_end is not None
    found, at = [], len(fork.trunk)
    for choice in fork.choices:
        states = torch.cat([trunk_end, hidden[at : at + len(choice) - 1]])
        chances = head(states).float().log_softmax(-1)
        wanted = torch.tensor(choice, device=hidden.device)
        of_choice = chances.gather(1, wanted[:, None])[:, 0].cpu().double().numpy()
        found.append(ChoiceScore(of_choice, (chances.argmax(-1) == wanted).cpu().numpy()))
        at += len(choice)
    return found


def rows(forks: list[Fork], prefix: int) -> tuple[Tensor, Branches]:
    """Token ids [B, N], and where they stand: each trunk with its choices behind it, all of one length by padding."""
    longest = max(fork.size for fork in forks)
    tokens = torch.zeros(len(forks), longest, dtype=torch.long)
    positions = torch.full((len(forks), longest), prefix)
    branch = torch.full((len(forks), longest), PADDING)
    for row, fork in enumerate(forks):
        start, at = prefix + len(fork.trunk), len(fork.trunk)
        tokens[row, : fork.size] = torch.tensor([*fork.trunk, *(token for choice in fork.choices for token in choice)])
        positions[row, :at] = torch.arange(prefix, start)
        branch[row, :at] = TRUNK
        for number, choice in enumerate(fork.choices, start=1):
            positions[row, at : at + len(choice)] = torch.arange(start, start + len(choice))
            branch[row, at : at + len(choice)] = number
            at += len(choice)
    return tokens, Branches(prefix, positions, branch)


def batches(forks: list[Fork], prefix: int, tokens_per_pass: int) -> list[list[int]]:
    """Indices of forks of like size that go through the model together, the prefix counted with each."""
    found: list[list[int]] = []
    for index in sorted(range(len(forks)), key=lambda i: forks[i].size):
        size = prefix + forks[index].size  # the longest so far, and so the width of the batch
        if found and (len(found[-1]) + 1) * size <= tokens_per_pass:
            found[-1].append(index)
        else:
            found.append([index])
    return found
