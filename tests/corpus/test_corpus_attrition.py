"""What is left out is counted, in tokens as well."""

from llmctl.corpus.attrition import SAMPLE, Attrition


def words(texts: list[str]) -> int:
    return sum(len(text.split()) for text in texts)


def of(attrition: Attrition) -> dict[str, int]:
    return {row["rule"]: row["tokens"] for row in attrition.rows()}


def test_tokens_are_those_of_the_text_where_all_of_it_was_seen():
    attrition = Attrition()
    for text in ("one two three", "four", "five six"):
        attrition.add("own", "filter", "short", len(text), text=text)
    attrition.add("own", "filter", "long", 5, text="seven")
    assert of(attrition) == {"short": None, "long": None}
    attrition.count_tokens(words)
    assert of(attrition) == {"short": 6, "long": 1}


def test_tokens_of_more_text_are_estimated_by_the_rate_of_its_beginning():
    attrition = Attrition()
    text = "abc " * 1000
    for _ in range(100):
        attrition.add("own", "filter", "long", len(text), text=text)
    attrition.add("own", "filter", "cut", 400, documents=0)
    counted = []
    attrition.count_tokens(lambda texts: counted.append(sum(map(len, texts))) or words(texts))
    assert of(attrition) == {"long": 100_000, "cut": 100}
    assert counted == [SAMPLE + 2000]  # in whole texts
