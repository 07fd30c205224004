"""The twelve kinds of text that passages are rewritten to, and how each is asked for."""

KINDS = {
    "summary": "a summary in three to six sentences of what the passages say about the phrase",
    "lesson": "a dialogue between a teacher and a student who comes with questions about the phrase; mark who speaks",
    "simple": "an account in short sentences and everyday words for someone who has never heard of the subject",
    "cards": "three to six flash cards, each with a line that begins with Front: and one that begins with Back:",
    "exercise": "an exercise that can be solved with what the passages say, and its solution worked out step by step",
    "quiz": "a scene from a quiz show in which the host asks about the phrase and the candidates answer",
    "table": "a talk at the dinner table in which one person tells the others of the phrase, and they ask and comment",
    "debate": "a debate in which two speakers stand for different views of the phrase, with a chair who sums up",
    "claims": "a numbered list of claims about the phrase, each a full sentence that the passages bear out",
    "film": "a scene of a film, with a heading, a few lines of action and dialogue, in which the phrase matters",
    "entry": "an entry of an encyclopaedia that has the phrase as its heading",
    "letter": "a letter to a curious ten-year-old that explains the phrase with what the passages say",
}
PROMPT = """Below are passages from one document. All of them have the phrase "{phrase}", which is set in **bold**.

Write {kind}. Draw on several of the passages, and say nothing that they do not bear out. Use the phrase "{phrase}" in your text
at least once, exactly so. Write plain text of 100 to 400 words with whole sentences up to the end and no word about this
task.

{passages}
"""


def instruction(kind: str, phrase: str, passages: str) -> str:
    return PROMPT.format(phrase=phrase, kind=KINDS[kind], passages=passages)
