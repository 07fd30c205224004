"""What generated answers score: exact match, token F1, pass@k."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
GROUPED = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?")
"""A number with thousands separators."""


def normalised(text: str) -> str:
    """`text` as the SQuAD evaluation script compares it (Rajpurkar et al. 2016, arXiv 1606.05250, `normalize_answer`): lower
    case, without punctuation, articles and white space that is more than one space between words."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(answer: str, accepted: Sequence[str], pattern: str = "") -> float:
    """1 if `answer` is one of `accepted`, else 0.

    With `pattern` the answer is what that finds in the text, and numbers are compared as numbers: "1,234" is "1234.0".
    """
    if pattern:
        found = last_match(answer, pattern)
        return float(found is not None and any(same_answer(found, one) for one in accepted))
    return float(normalised(answer) in map(normalised, accepted))


def last_match(text: str, pattern: str) -> str | None:
    """The last match of a regular expression: its first group that took part, without groups the whole of it."""
    matches = list(re.finditer(pattern, text))
    if not matches:
        return None
    return next((group for group in matches[-1].groups() if group is not None), matches[-1].group())


def same_answer(answer: str, accepted: str) -> bool:
    """As numbers if both are some, else after `normalised`."""
    one, other = number(answer), number(accepted)
    if one is not None and other is not None:
        return one == other
    return one is other and normalised(answer) == normalised(accepted)


def number(text: str) -> Decimal | None:
    """The number that `text` is: thousands separators, a dollar sign and the full stop of a sentence do not count."""
    text = text.strip().replace("$", "", 1).rstrip(".,")
    if GROUPED.fullmatch(text):
        text = text.replace(",", "")
    try:
        found = Decimal(text)
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def token_f1(answer: str, accepted: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of the words, the best over `accepted` (Rajpurkar et al. 2016, section 6.1). Where
    either has no words: whether both have none, as the script of SQuAD 2.0 has it."""
    return max((_f1(normalised(answer).split(), normalised(one).split()) for one in accepted), default=0.0)


def _f1(answer: list[str], accepted: list[str]) -> float:
    if not answer or not accepted:
        return float(answer == accepted)
    shared = (Counter(answer) & Counter(accepted)).total()
    return 2 * shared / (len(answer) + len(accepted))


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The chance that one of `k` answers drawn from `samples` passes, of which `passed` do: the unbiased estimator of Chen et
    al. 2021, arXiv 2107.03374, equation 1, 1 - C(n - c, k) / C(n, k), as a product, whose factors stay between 0 and 1.

    Raises:
        ValueError: k is not between 1 and `samples`, or `passed` not between 0 and `samples`.
    """
    if not 1 <= k <= samples or not 0 <= passed <= samples:
        raise ValueError(f"pass@{k} of {samples} samples, of which {passed} pass: there is no such number")
    failing = 1.0
    for number_of_samples in range(samples - passed + 1, samples + 1):
        failing *= max(0.0, 1 - k / number_of_samples)
    return 1 - failing
