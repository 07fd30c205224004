"""The generator behind an OpenAI-compatible endpoint: chat completions over HTTP."""

import os
import re
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from llmctl.corpus.synthesis.generator import Request
from llmctl.corpus.synthesis.posting import Answered, Unreachable, post
from llmctl.errors import StageFailed, UserError

AT_ONCE = 8  # requests that are on their way together
CHECK_TIMEOUT = 30.0  # seconds for the first word, which a person waits for
OF_ONE_PROMPT = {400, 413, 422}
"""Refusals that may be for one prompt alone, which is too long for the model, say. Sent again it would be refused again."""
NEW_TOKENS = 2048  # of a reply, thoughts of a model that has such included


def completions_address(base: str) -> str:
    """Where chat completions are asked for: a base may end in /v1 or without it, or be the whole address."""
    base = base.rstrip("/")
    if base.endswith("/chat/completions"):
        return base
    versioned = re.search(r"/v\d", urlsplit(base).path) is not None
    return f"{base}{'' if versioned else '/v1'}/chat/completions"


class Endpoint:
    def __init__(
        self, base: str, model: str | None, api_key_variable: str, timeout: float = 300.0, tries: int = 3, pause: float = 2.0
    ) -> None:
        """`timeout`: seconds that a reply may take; `pause`: seconds before the second try, doubled before each further one.

        Raises:
            UserError: no model is named, or the address holds a password.
        """
        if "@" in urlsplit(base).netloc:
            raise UserError(
                f"[longctx.synthetic] generator: an address with a password in it; put the key in {api_key_variable} instead"
            )
        if not model:
            raise UserError(f"[longctx.synthetic] model is missing: the name of a model that {base} has")
        self._address = completions_address(base)
        self._model = model
        self._variable = api_key_variable
        self._key = os.environ.get(api_key_variable, "")
        self._timeout, self._tries, self._pause = timeout, tries, pause
        self._limit_key = "max_tokens"

    def check(self) -> None:
        """Ask for a word.

        Raises:
            UserError: it does not answer, or not as such an endpoint does.
        """
        self._reply("Reply with the word yes.", min(self._timeout, CHECK_TIMEOUT), threading.Event())

    def write(self, requests: Sequence[Request]) -> list[str]:
        """A text for each request, empty where the endpoint refuses this one; `check` has shown that it takes others.

        Raises:
            UserError: key, model or address are refused, or a request was not answered after the last try.
        """
        threads, stopped = ThreadPoolExecutor(AT_ONCE), threading.Event()
        try:
            return list(threads.map(lambda request: self._reply(request.prompt, self._timeout, stopped, OF_ONE_PROMPT), requests))
        finally:
            # After a failure, or Ctrl-C, what is not yet sent is not sent any more.
            stopped.set()
            threads.shutdown(wait=False, cancel_futures=True)

    def _reply(self, prompt: str, timeout: float, stopped: threading.Event, empty: Collection[int] = ()) -> str:
        """The text; none at a status among `empty`."""
        answer = self._post(prompt, timeout, stopped)
        # Newer models of OpenAI take the limit under this name alone.
        if answer.status == 400 and self._limit_key == "max_tokens" and "max_completion_tokens" in answer.body:
            self._limit_key = "max_completion_tokens"
            answer = self._post(prompt, timeout, stopped)
        if answer.status in empty:
            return ""
        if answer.status != 200:
            raise UserError(f"{self._address}: {self._refusal(answer)}")
        try:
            content = answer.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            raise UserError(
                f"{self._address}: its reply is no chat completion: {self._without_key(answer.body)!r}. "
                "Give the base address of an OpenAI-compatible endpoint, such as http://localhost:8000/v1."
            ) from None
        return content if isinstance(content, str) else ""

    def _post(self, prompt: str, timeout: float, stopped: threading.Event) -> Answered:
        body: dict[str, Any] = {"model": self._model, "messages": [{"role": "user", "content": prompt}]}
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            return post(self._address, body | {self._limit_key: NEW_TOKENS}, headers, timeout, self._tries, self._pause, stopped)
        except Unreachable as error:
            raise StageFailed(
                f"{self._address}: no answer after {self._tries} tries: {self._without_key(str(error))}. Start the endpoint, "
                'correct [longctx.synthetic] generator, or take generator = "template", which needs none.'
            ) from None

    def _refusal(self, answer: Answered) -> str:
        told = f"refused with HTTP {answer.status}: {self._without_key(answer.body)!r}. "
        if answer.status in (401, 403):
            held = "is refused" if self._key else "is unset"
            return told + f"The key is read from the environment variable {self._variable}, and what it holds {held}."
        if answer.status == 404:
            return told + f"Is the address right, and does it have the model {self._model!r} ([longctx.synthetic] model)?"
        return told + "See [longctx.synthetic] generator and model."

    def _without_key(self, text: str) -> str:
        """The beginning of what a server says, which may be what it was sent."""
        return (text.replace(self._key, "***") if self._key else text)[:200]
