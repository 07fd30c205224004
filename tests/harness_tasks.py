"""Tasks of lm-evaluation-harness made up for tests, as YAML files with their data."""

import json
from pathlib import Path

CHOICES = """
task: own_colours
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/test.jsonl, train: {folder}/train.jsonl}}
test_split: test
training_split: train
fewshot_split: train
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 2.0}}
"""
GENERATED = """
task: own_sums
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/test.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[0]}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 6, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
ROLLING = """
task: own_text
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/test.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list:
  - {{metric: word_perplexity}}
  - {{metric: bits_per_byte}}
"""
GROUP = """
group: own_all
task: [own_colours, own_sums]
aggregate_metric_list:
  - {metric: acc, weight_by_size: true}
"""


def write_own_tasks(folder: Path) -> Path:
    things = ["sky", "grass", "snow", "coal", "blood", "lemon", "sea", "ash", "moss", "milk"]
    rows = [
        {"question": f"Which colour is {thing}?", "choices": ["blue", "dark green", "white", "red"], "answer": n % 4}
        for n, thing in enumerate(things)
    ]
    for name, part in (("train", rows[:4]), ("test", rows[4:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    for name, text in (("colours", CHOICES), ("sums", GENERATED), ("text", ROLLING)):
        (folder / f"{name}.yaml").write_text(text.format(folder=folder))
    (folder / "all.yaml").write_text(GROUP)
    return folder
