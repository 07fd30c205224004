"""What OLMES tasks are, in words."""

FORMS = {
    "rc": "the choices' texts are ranked",
    "mc": "the labels of choices that stand in the prompt are ranked",
    "bpb": "bits per byte of the gold answer",
    "gen": "an answer is generated",
}
TITLES = {
    "arc_challenge": "ARC Challenge, science exams",
    "arc_easy": "ARC Easy, science exams",
    "boolq": "BoolQ, yes or no from a passage",
    "codex_humaneval": "HumanEval, Python functions",
    "codex_mbpp": "MBPP, short Python programs",
    "copa": "COPA, cause and effect",
    "copycolors": "copy colors, whether a model can pick a label at all",
    "coqa": "CoQA, questions in a conversation",
    "csqa": "CommonsenseQA",
    "drop": "DROP, reading with arithmetic",
    "gsm8k": "GSM8K, school arithmetic in words",
    "hellaswag": "HellaSwag, how a scene goes on",
    "jeopardy": "Jeopardy, trivia",
    "lambada": "LAMBADA, the last word of a passage",
    "medmcqa": "MedMCQA, medical entrance exams",
    "medqa_en": "MedQA, medical licence exams",
    "naturalqs_open": "Natural Questions, without the page",
    "openbookqa": "OpenBookQA, elementary science",
    "piqa": "PIQA, everyday physics",
    "qasper_yesno": "QASPER, yes or no from papers",
    "sciq": "SciQ, science exams",
    "sciriff_yesno": "SciRIFF, yes or no from abstracts",
    "socialiqa": "Social IQa, how people react",
    "squad": "SQuAD, reading",
    "winogrande": "WinoGrande, what a pronoun stands for",
}
FAMILIES = {
    "basic_skills_": "OLMo's basic skills",
    "lab_bench_": "LAB-Bench, biology",
    "minerva_math_": "MATH with Minerva's prompt",
    "mt_mbpp_": "MBPP in other languages",
}


def describe(task: str, form: str) -> str:
    """One line for a list of tasks."""
    return f"{TITLES.get(task) or title(task)}: {FORMS[form]}"


def title(task: str) -> str:
    for start, words in FAMILIES.items():
        if task.startswith(start):
            return f"{words}, {task.removeprefix(start).replace('_', ' ')}"
    return task
