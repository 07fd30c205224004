"""The chat template of a tokenizer: which one it has, what it writes, which tokens it needs."""

import difflib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.tokens.named_templates import CHATML, NAMED, TULU

Messages = list[dict[str, Any]]
"""Turns as `Conversation.messages` has them; the arguments of a tool call are an object."""

MARKER_LIKE = re.compile(r"<\|\w+\|>|<(?:start|end)_of_turn>")
"""What a template writes as a special token of the vocabulary."""


class Refused(UserError):
    """A template that does not write this conversation; `reason` is what it says."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def ensure_template(tokenizer: Any) -> bool:
    """Give a tokenizer without a chat template one that its vocabulary can close a turn with. False: it has its own."""
    if tokenizer.chat_template:
        return False
    vocabulary = tokenizer.get_vocab()
    tokenizer.chat_template = CHATML if {"<|im_start|>", "<|im_end|>"} <= vocabulary.keys() else TULU
    return True


def set_template(tokenizer: Any, name_or_path: str) -> None:
    """Give a tokenizer a template of `NAMED`, or that of a Jinja file.

    Raises:
        UserError: there is none of that name, no such file, or it is no Jinja.
    """
    if name_or_path in NAMED:
        tokenizer.chat_template = NAMED[name_or_path]
        return
    file = Path(name_or_path).expanduser()
    if not file.suffix and len(file.parts) == 1 and not file.is_file():
        near = difflib.get_close_matches(name_or_path, NAMED, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(NAMED)}, or the path of a Jinja file"
        raise UserError(f"template = {name_or_path!r}: there is no chat template of that name; {hint}")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"template = {name_or_path!r}: cannot be read: {error}") from None
    check_syntax(text, str(file))
    tokenizer.chat_template = text


def check_syntax(text: str, place: str) -> None:
    """Raises:
    UserError: `text` of the file `place` is no Jinja template, with its line.
    """
    from jinja2 import TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Blocks of `transformers` that mark what an assistant writes; Jinja alone does not know them.
    plain = re.sub(r"\{%-?\s*(?:end)?generation\s*-?%\}", "", text)
    try:
        ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(plain)
    except TemplateSyntaxError as error:
        raise UserError(f"{place}:{error.lineno}: not a Jinja template: {error.message}") from None
    if not text.strip():
        raise UserError(f"{place}: an empty chat template")


def special_tokens(tokenizer: Any) -> list[str]:
    """Tokens of the vocabulary that no text is split into: those that are marked as special."""
    marked = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return sorted({*marked, *tokenizer.all_special_tokens})


@lru_cache(maxsize=16)
def _any_of(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any of them, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or r"(?!)")


def special_pattern(tokenizer: Any) -> re.Pattern[str]:
    """Matches the text of any special token."""
    return _any_of(tuple(special_tokens(tokenizer)))


def missing_tokens(tokenizer: Any) -> list[str]:
    """Markers that the template writes and that are no special tokens of this vocabulary, in the template's order: what
    `add_tokens` would have to name."""
    known = set(special_tokens(tokenizer))
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    return [token for token in dict.fromkeys(MARKER_LIKE.findall(template)) if token not in known]


def add_tokens(tokenizer: Any, names: list[str]) -> int:
    """Give a tokenizer special tokens; returns how many are new to its vocabulary.

    Raises:
        UserError: a name is empty, or has white space at its ends.
    """
    from tokenizers import AddedToken

    for name in names:
        if not name or name != name.strip():
            raise UserError(f"add_tokens: {name!r} is no token: a name without white space at its ends was expected")
    before = len(tokenizer)
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True)
    return len(tokenizer) - before


def render(tokenizer: Any, messages: Messages, prompt: bool = False, tools: list[dict[str, Any]] | None = None) -> str:
    """The conversation as text; `prompt`: with the beginning of an answer; `tools`: JSON schemas of the functions at hand.

    Templates are programs of whoever made the tokenizer; `transformers` runs them in Jinja's `ImmutableSandboxedEnvironment`.

    Raises:
        UserError: the template reaches out of the sandbox, or is broken.
        Refused: it does not write this conversation.
    """
    from jinja2 import TemplateError, TemplateSyntaxError
    from jinja2.sandbox import SecurityError

    try:
        return tokenizer.apply_chat_template(messages, tools=tools or None, tokenize=False, add_generation_prompt=prompt)
    except SecurityError as error:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} tries to reach Python itself and was stopped: {error} "
            "Trust nothing of this checkpoint; or give its tokenizer another template (chat_template.jinja)."
        ) from None
    except (TemplateError, ArithmeticError, TypeError, ValueError, MemoryError, AttributeError, LookupError) as error:
        reason = f"({type(error).__name__}): {error}"
        message = f"the chat template of {tokenizer.name_or_path} cannot write this conversation {reason}"
        if isinstance(error, TemplateSyntaxError):
            raise UserError(message) from None
        raise Refused(message, str(error)) from None


def end_of_turn_ids(tokenizer: Any) -> list[int]:
    """Tokens that end a generated answer: what the template closes its turns with, one that others follow and the last, and
    the end of text.

    Raises:
        UserError: the template is broken.
        Refused: it writes not even one question with its answer.
    """
    answers = ("firstanswer", "lastanswer")
    talk = [{"role": role, "content": text} for answer in answers for role, text in (("user", "a"), ("assistant", answer))]
    try:
        text = render(tokenizer, talk)
    except Refused:  # a template of one question and one answer
        text = render(tokenizer, talk[:2])
    special = special_pattern(tokenizer)
    found = {tokenizer.eos_token_id}
    for answer in answers:
        after = text.partition(answer)[2].lstrip()
        if closing := special.match(after):
            found.add(tokenizer.convert_tokens_to_ids(closing.group()))
    return sorted(found - {None})
