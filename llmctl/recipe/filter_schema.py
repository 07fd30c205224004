"""[corpus.filter]: rules that a document of text has to pass, with profiles for kinds of text."""

from typing import Any, Literal

from pydantic import Field, model_validator

from llmctl.recipe.fields import Place, Share, Table

Profile = Literal["web", "prose", "code", "c4"]

NO_LINE_EDITS = {
    "max_uppercase": 1.0,
    "drop_numeric_lines": False,
    "drop_counter_lines": False,
    "min_line_words": 0,
    "remove_phrases": [],
    "max_words_removed": 1.0,
}
NO_REPETITION = {
    "max_repeated_lines": 1.0,
    "max_repeated_paragraphs": 1.0,
    "max_repeated_line_characters": 1.0,
    "max_repeated_paragraph_characters": 1.0,
    "max_top_ngrams": [],
    "max_repeated_ngrams": [],
}
ANY_WORDS = {
    "min_mean_word_length": 0.0,
    "max_mean_word_length": None,
    "max_symbols": None,
    "max_bullet_lines": 1.0,
    "max_ellipsis_lines": 1.0,
    "max_nonalphabetic_words": 1.0,
    "min_stop_words": 0,
}
PROFILES: dict[str, dict[str, Any]] = {
    "web": {},
    # Articles, books, documentation: lines are no menus, and long is good.
    "prose": NO_LINE_EDITS | {"max_words": None, "min_sentences": 0, "max_suspect_sentences": 1.0},
    # StarCoder's rules (arXiv 2305.06161, section 3.1). Code repeats its lines and is no sentences.
    "code": NO_LINE_EDITS
    | NO_REPETITION
    | ANY_WORDS
    | {
        "min_words": 10,
        "max_words": None,
        "min_sentences": 0,
        "max_suspect_sentences": 1.0,
        "max_newlines": 0,
        "max_mean_line_length": 100.0,
        "max_line_length": 1000,
        "min_alphanumeric": 0.25,
        "max_repeated_line_characters": 0.6,
    },
    # Raffel et al. 2020 (JMLR 21, section 2.2) alone.
    "c4": NO_LINE_EDITS
    | NO_REPETITION
    | ANY_WORDS
    | {
        "min_characters": 0,
        "min_words": 0,
        "max_words": None,
        "max_newlines": 0,
        "min_line_words": 3,
        "line_end_punctuation": True,
        "longest_word": 1000,
        "drop_lines_with": [
            "javascript",
            "terms of use",
            "privacy policy",
            "cookie policy",
            "uses cookies",
            "use of cookies",
            "use cookies",
        ],
        "drop_documents_with": ["lorem ipsum", "{"],
        "max_suspect_sentences": 1.0,
    },
}


class FilterTable(Table):
    """[corpus.filter]: rules that the documents of a source have to pass, held-out ones too.

    The defaults are Olmo 3's for the web; a profile has its own. A rule at its limit (0 or 1 for a share), or without one,
    drops nothing.
    """

    profile: Profile = "web"
    """Where the other keys have their defaults from: web, prose, code, or c4 (C4's rules alone)."""
    blocked_domains: list[Place] = []
    """Files of domains, one a line (as blocklists have them); documents of these and of what is below them are dropped."""
    blocked_url_phrases: list[str] = []
    """Phrases in lower case; a document whose address has one anywhere is dropped."""
    suspect_url_words: list[str] = []
    """Words in lower case; a document whose address has two different ones is dropped."""
    min_characters: int = Field(default=150, ge=0)
    """Characters of a document at least."""
    min_words: int = Field(default=50, ge=0)
    """Words at least, punctuation alone not counted. Words are what stands between white space."""
    max_words: int | None = Field(default=100_000, ge=1)
    """Words at most."""
    min_mean_word_length: float = Field(default=3.0, ge=0)
    """Mean characters of a word at least."""
    max_mean_word_length: float | None = Field(default=10.0, gt=0)
    """Mean characters of a word at most."""
    max_symbols: float | None = Field(default=0.1, ge=0)
    """`#`, or ellipses, per word."""
    max_bullet_lines: Share = 0.9
    """Share of lines that begin with a bullet."""
    max_ellipsis_lines: Share = 0.3
    """Share of lines that end in an ellipsis."""
    max_nonalphabetic_words: Share = 0.2
    """Share of words without a letter."""
    min_stop_words: int = Field(default=2, ge=0)
    """How many different ones of `stop_words` a document has at least."""
    stop_words: list[str] = ["the", "be", "to", "of", "and", "that", "have", "with"]
    """Words that any text of the language has."""
    max_mean_line_length: float | None = Field(default=None, gt=0)
    """Mean characters of a line, empty ones left out."""
    max_line_length: int | None = Field(default=None, ge=1)
    """Characters of the longest line."""
    min_alphanumeric: Share = 0.0
    """Share of the characters that are letters or digits."""
    drop_documents_with: list[str] = []
    """Phrases in lower case; a document that has one when its lines are cut is dropped."""
    max_newlines: int = Field(default=2, ge=0)
    """Line breaks in a row; more are cut to these. 0: left as they are."""
    max_repeated_lines: Share = 0.3
    """Share of lines that stand in the document before."""
    max_repeated_paragraphs: Share = 0.3
    """Share of paragraphs that stand in the document before."""
    max_repeated_line_characters: Share = 0.2
    """Share of the characters in repeated lines."""
    max_repeated_paragraph_characters: Share = 0.2
    """Share of the characters in repeated paragraphs."""
    max_top_ngrams: list[Share] = Field(default=[0.20, 0.18, 0.16], max_length=3)
    """Share of the characters in the most frequent 2-, 3- and 4-gram."""
    max_repeated_ngrams: list[Share] = Field(default=[0.15, 0.14, 0.13, 0.12, 0.11, 0.10], max_length=6)
    """Share of the characters in repeated 5-, 6-, ... 10-grams."""
    max_uppercase: Share = 0.5
    """Share of a line's characters in upper case; a line with more is cut."""
    drop_numeric_lines: bool = True
    """Cut lines of digits alone."""
    drop_counter_lines: bool = True
    """Cut lines like "12 likes"."""
    min_line_words: int = Field(default=2, ge=0)
    """Words of a line; a line with fewer is cut."""
    line_end_punctuation: bool = False
    """Cut lines that do not end in a full stop, exclamation mark, question mark or quotation mark."""
    longest_word: int | None = Field(default=None, ge=1)
    """Characters of a word; a line with a longer one is cut."""
    drop_lines_with: list[str] = []
    """Phrases in lower case; lines that have one are cut."""
    remove_phrases: list[str] = ["items in cart", "Read more...", "Sign-in"]
    """Phrases that are cut out of lines of at most 10 words."""
    max_words_removed: Share = 0.05
    """Share of a document's words in what was cut; a document that lost more is dropped."""
    language_model: Place | None = None
    """File of a fastText model of languages (lid.176.bin). Left out: languages are not looked at."""
    languages: list[str] = ["en"]
    """Languages that are kept, by the model's labels."""
    min_language_score: Share = 0.65
    """Probability of these languages together, at least."""
    min_sentences: int = Field(default=5, ge=0)
    """Sentences at least."""
    max_suspect_sentences: Share = 0.2
    """Share of sentences that are lists of capitalised words or have a suspect phrase (MADLAD-400, rules 2 and 5)."""
    suspect_phrases: list[str] = [
        "lorem ipsum",
        "Lorem ipsum",
        "dolor sit amet",
        "mp3 download",
        " xxx ",
        " porn ",
        "\ufffd\ufffd",
    ]
    """Phrases of generated or broken pages."""

    @model_validator(mode="before")
    @classmethod
    def _profile(cls, values: Any) -> Any:
        if isinstance(values, str):
            values = {"profile": values}
        profile = PROFILES.get(str(values.get("profile", "web")), {}) if isinstance(values, dict) else {}
        return profile | values if isinstance(values, dict) else values
