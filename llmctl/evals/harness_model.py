"""llmctl's scoring as a model of lm-evaluation-harness: the same tokens as its own `HFLM` makes of a text, scored with what
prompts share read once.

lm_eval is an optional package, and takes 6 s to import: this module is imported where its tasks are asked, and nowhere else.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from llmctl import events
from llmctl.errors import StageFailed, UserError
from llmctl.evals.continuations import BranchScore, NotFinite
from llmctl.evals.prompts import Pair, begin_token, encode
from llmctl.evals.result import not_finite
from llmctl.evals.shared import scores_of
from llmctl.model.generate import generate_samples
from llmctl.suites.task import Sampling
from llmctl.tokens.template import special_pattern

NAME = "lm-evaluation-harness"
LONGEST_ANSWER = 256  # tokens, where a task does not say: as HFLM


class HarnessModel(TemplateLM):
    """Scores with `model` in a context of `limit` tokens; answers that are drawn come from `seed`. `model` attends to packed
    documents (`use_packed_attention`)."""

    def __init__(self, model: Any, tokenizer: Any, limit: int, seed: int = 1) -> None:
        super().__init__()
        self.model, self.tokenizer, self.limit, self.seed = model, tokenizer, limit, seed
        self.streams = sys.stdout, sys.stderr
        self.special = special_pattern(tokenizer)
        self.cut: dict[str, set[int]] = {}
        """Numbers of the questions that did not fit, by task."""
        self._asked: list[tuple[str, int]] = []

    @property
    def max_length(self) -> int:
        return self.limit

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        return begin_token(self.tokenizer)

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **others: Any) -> list[int]:
        if add_special_tokens is None:
            return encode(self.tokenizer, string)
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        self._asked = [(str(request.task_name), request.doc_id or 0) for request in requests]
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: list[Any], **others: Any) -> list[tuple[float, bool]]:
        pairs = []
        for (task, number), (_, context, continuation) in zip(self._asked, requests, strict=True):
            if len(context) + len(continuation) > self.limit + 1:
                self.cut.setdefault(task, set()).add(number)
            pairs.append(fitted(task, number, context, continuation, self.limit))
        with speaking(*self.streams):
            scores = scored(self.model, [list(of_one) for _, of_one in groupby(pairs, key=lambda pair: pair[0])])
        return [(s.total, bool(s.likeliest.all())) for s in scores]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        windows: list[Pair] = []
        owners: list[int] = []
        for owner, request in enumerate(requests):
            cut = get_rolling_token_windows(self.tok_encode(request.args[0]), self.prefix_token_id, self.limit, context_len=1)
            windows += [make_disjoint_window(window) for window in cut]
            owners += [owner] * (len(windows) - len(owners))
        with speaking(*self.streams):
            scores = scored(self.model, [[window] for window in windows])
        totals = [0.0] * len(requests)
        for owner, score in zip(owners, scores, strict=True):
            totals[owner] += score.total
        return totals

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        found = [""] * len(requests)
        for settings, numbers in alike([request.args[1] for request in requests]):
            told: dict[str, Any] = dict(normalize_gen_kwargs(settings, LONGEST_ANSWER))
            stops = handle_stop_sequences(told.get("until"), eos=self.tokenizer.decode([self.eot_token_id]))
            longest = int(told["max_gen_toks"])
            if longest >= self.limit:
                raise UserError(
                    f"{requests[numbers[0]].task_name}: answers of up to {longest} tokens are asked for, and the model's "
                    f"context holds {self.limit} with the question"
                )
            prompts = [self._prompt(requests[number], self.limit - longest) for number in numbers]
            keys = [f"{requests[number].task_name}/{number}" for number in numbers]
            drawn = 1.0 if told.get("do_sample") else 0.0  # as HFLM, where no temperature is named
            temperature, top_p = float(told.get("temperature") or drawn), float(told.get("top_p") or 1.0)
            sampling = Sampling(longest, tuple(filter(None, stops)), temperature, top_p)
            with speaking(*self.streams):
                answers = generate_samples(
                    self.model, self.tokenizer, prompts, sampling, [self.eot_token_id], seed=self.seed, keys=keys, task=NAME
                )
            for number, (answer,) in zip(numbers, answers, strict=True):
                if not answer.finite:
                    raise broken(number, len(requests))
                found[number] = postprocess_generated_text(self.special.sub("", answer.text), stops, None)
        return found

    def _prompt(self, request: Any, room: int) -> list[int]:
        ids = self.tok_encode(request.args[0]) or [self.prefix_token_id]
        if len(ids) > room:
            self.cut.setdefault(str(request.task_name), set()).add(request.doc_id or 0)
        return ids[-room:]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )


@contextlib.contextmanager
def speaking(out: Any, err: Any) -> Iterator[None]:
    """The streams as they were before lm_eval was made quiet: what llmctl itself has to say goes there."""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


def fitted(task: str, number: int, context: list[int], continuation: list[int], limit: int) -> Pair:
    """The last tokens of a context and its continuation that a context of `limit` tokens holds: the very last one is only
    predicted.

    Raises:
        UserError: nothing is left to score, or there is no room for it.
    """
    if not continuation:
        raise UserError(f"{task}, question {number}: a choice gives no token of its own after its prompt")
    if len(continuation) > limit:
        raise UserError(f"{task}, question {number}: a choice has {len(continuation)} tokens, and the context holds {limit}")
    return context[-(limit + 1 - len(continuation)) :], continuation


def scored(model: Any, questions: Sequence[Sequence[Pair]]) -> list[BranchScore]:
    """Scores of each pair's continuation after its context, in order; the pairs of a question stand together.

    Raises:
        StageFailed: the model's logits are no numbers.
    """
    try:
        found = scores_of(model, questions, lambda done: events.progress(NAME, done, len(questions), "questions"))
    except NotFinite as error:
        raise broken(error.fork, len(questions)) from None
    return [score for of_one in found for score in of_one]


def broken(number: int, of: int) -> StageFailed:
    return not_finite(f"{NAME}, question {number} of {of}")


def alike(settings: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], list[int]]]:
    """Numbers of the requests that are asked with the same settings."""
    found: dict[str, tuple[dict[str, Any], list[int]]] = {}
    for number, one in enumerate(settings):
        found.setdefault(repr(one), (one, []))[1].append(number)
    return list(found.values())
