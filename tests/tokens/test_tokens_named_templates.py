"""The templates that llmctl writes itself: what each makes of a conversation, and what of it is trained on."""

import copy
from itertools import product

import pytest
from jinja2 import Environment, nodes

from llmctl.errors import UserError
from llmctl.recipe.chat_schema import TemplateName
from llmctl.tokens.masks import encode_talk
from llmctl.tokens.named_templates import NAMED
from llmctl.tokens.template import Refused, add_tokens, end_of_turn_ids, missing_tokens, render, set_template

TOOLS = [{"type": "function", "function": {"name": "add", "description": "Sum.", "parameters": {"type": "object"}}}]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": "x"}}}
ASK, SYSTEM = {"role": "user", "content": "Explain SGD."}, {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "SGD is ..."}
TALKS = {
    "plain": [ASK, ANSWER],
    "turns": [ASK, ANSWER, {"role": "user", "content": "And Adam?"}, {"role": "assistant", "content": "Moments."}],
    "system": [SYSTEM, ASK, ANSWER],
    "thinking": [ASK, ANSWER | {"reasoning_content": "What is it?"}, ASK, ANSWER | {"reasoning_content": "Again."}],
    "tools": [
        ASK,
        {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
        {"role": "tool", "content": "4"},
        ANSWER,
    ],
}
WRITTEN = {
    "plain": ["SGD is ..."],
    "turns": ["SGD is ...", "Moments."],
    "system": ["SGD is ..."],
    "thinking": ["<think>\nWhat is it?\n</think>\n\nSGD is ...", "<think>\nAgain.\n</think>\n\nSGD is ..."],
}
JSON = '{"name": "add", "arguments": {"a": 2, "b": "x"}}'
CALLS = {
    "olmo": '<function_calls>add(a=2, b="x")\nadd(a=2, b="x")</function_calls>',
    "chatml": f"<tool_call>\n{JSON}\n</tool_call>\n<tool_call>\n{JSON}\n</tool_call>",
    "llama3": "\n".join([JSON.replace("arguments", "parameters")] * 2),
    "mistral": f"[TOOL_CALLS] [{JSON}, {JSON}]",
}
CLOSING = {
    "olmo": ["<|im_end|>", "<|endoftext|>"],
    "chatml": ["<|im_end|>", "<|im_end|>"],
    "llama3": ["<|eot_id|>", "<|eot_id|>"],
    "gemma": ["<end_of_turn>", "<end_of_turn>"],
    "mistral": ["<|endoftext|>", "<|endoftext|>"],
    "tulu": ["<|endoftext|>", "<|endoftext|>"],
    "simple": ["<|endoftext|>", "<|endoftext|>"],
}


@pytest.fixture(scope="module", params=NAMED)
def named(request, tokenizer):
    """(name, tokenizer) with the tokens that the template needs, and one that text begins with."""
    own = copy.deepcopy(tokenizer)
    set_template(own, request.param)
    add_tokens(own, ["<s>", *missing_tokens(own)])
    own.bos_token = "<s>"
    return request.param, own


def test_each_name_of_the_recipe_is_a_template():
    assert set(NAMED) == set(TemplateName.__args__)


def trained(tokenizer, encoded):
    """(what is written, closing token) of each turn."""
    assert all(turn.closing is not None for turn in encoded.turns)
    pairs = [(tokenizer.decode(encoded.ids[t.start : t.end]), tokenizer.decode([encoded.ids[t.closing]])) for t in encoded.turns]
    counted = sum(t.stop - t.start for t in encoded.turns)
    assert (encoded.mask != 0).sum() == counted
    return pairs


@pytest.mark.parametrize("kind", TALKS)
def test_what_an_assistant_writes_is_trained_on_and_closed(named, kind):
    name, tokenizer = named
    tools = TOOLS if kind == "tools" else None
    if kind == "tools" and name not in CALLS:
        with pytest.raises(Refused, match=f"the template {name} has no form for tools"):
            encode_talk(tokenizer, TALKS[kind], tools=tools)
        return
    expected = WRITTEN[kind] if kind != "tools" else [CALLS[name], "SGD is ..."]
    closings = CLOSING[name] if len(expected) == 2 else CLOSING[name][-1:]
    found = trained(tokenizer, encode_talk(tokenizer, TALKS[kind], tools=tools))
    assert [(text.strip(), closing) for text, closing in found] == list(zip(expected, closings, strict=True))


def test_nothing_that_is_said_to_the_model_is_dropped(named):
    name, tokenizer = named
    text = render(tokenizer, [SYSTEM, *TALKS["turns"]])
    assert all(message["content"] in text for message in [SYSTEM, *TALKS["turns"]])
    if name in CALLS:
        text = render(tokenizer, TALKS["tools"], tools=TOOLS)
        assert '"description": "Sum."' in text
        assert "4" in text.partition(CALLS[name])[2].partition("SGD is")[0]


@pytest.mark.parametrize("kind", TALKS)
def test_generation_begins_where_training_does(named, kind):
    name, tokenizer = named
    if kind == "tools" and name not in CALLS:
        return
    tools, talk = TOOLS if kind == "tools" else None, TALKS[kind]
    whole, prompt = render(tokenizer, talk, tools=tools), render(tokenizer, talk[:-1], prompt=True, tools=tools)
    if name == "olmo" or kind != "tools":
        assert whole.startswith(prompt)
    encoded = encode_talk(tokenizer, talk, "last_turn", tools)
    assert encoded.turns[0].span[0] == len(prompt)


def test_both_ends_of_a_turn_stop_an_answer(named):
    name, tokenizer = named
    assert set(tokenizer.convert_ids_to_tokens(end_of_turn_ids(tokenizer))) == {*CLOSING[name], "<|endoftext|>"}


def test_a_role_that_no_template_knows_is_refused(named):
    _, tokenizer = named
    with pytest.raises(Refused, match='no role "judge"'):
        render(tokenizer, [ASK, {"role": "judge", "content": "Guilty."}])


def test_a_text_begins_with_the_token_for_it_once(named):
    name, tokenizer = named
    count = render(tokenizer, TALKS["turns"]).count("<s>")
    assert count == (0 if name in ("olmo", "chatml", "tulu") else 1)


def test_the_diagram_token_by_token(tokenizer):
    """<BOS> User: Explain SGD. Assistant: SGD is ... <EOS>"""
    own = copy.deepcopy(tokenizer)
    set_template(own, "simple")
    own.add_special_tokens({"bos_token": "<BOS>", "eos_token": "<EOS>"})
    encoded = encode_talk(own, TALKS["plain"])
    assert encoded.text == "<BOS> User: Explain SGD. Assistant: SGD is ...<EOS>"
    rows = [(own.decode([token]), int(kind)) for token, kind in zip(encoded.ids, encoded.mask, strict=True)]
    prompt, written = "<BOS> User: Explain SGD. Assistant:", " SGD is ..."
    assert "".join(text for text, kind in rows if kind == 0) == prompt
    assert "".join(text for text, kind in rows if kind == 2) == written
    assert rows[-1] == ("<EOS>", 1)
    assert [kind for _, kind in rows[:-1]] == sorted(kind for _, kind in rows[:-1])


def test_what_a_template_lacks_is_named_and_can_be_added(tokenizer):
    own = copy.deepcopy(tokenizer)
    set_template(own, "llama3")
    lacking = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    assert missing_tokens(own) == lacking
    assert encode_talk(own, TALKS["plain"]).turns[0].closing is None
    assert add_tokens(own, lacking) == 3
    assert add_tokens(own, lacking) == 0
    assert missing_tokens(own) == []
    assert encode_talk(own, TALKS["plain"]).closing_ids == [own.convert_tokens_to_ids("<|eot_id|>")]
    with pytest.raises(UserError, match="add_tokens: ' <x>' is no token"):
        add_tokens(own, [" <x>"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("chatlm", None, "template = 'chatlm': there is no chat template of that name; did you mean 'chatml'?"),
        ("vicuna", None, "known are olmo, chatml, llama3, gemma, mistral, tulu, simple, or the path of a Jinja file"),
        ("none.jinja", None, "none.jinja': cannot be read: .*No such file"),
        (
            "bad.jinja",
            "{% for m in messages %}\n{{ m.content }\n{% endfor %}",
            r"bad.jinja:2: not a Jinja template: unexpected '}'",
        ),
        ("empty.jinja", " \n", "empty.jinja: an empty chat template"),
    ],
)
def test_a_template_that_is_none_is_said_with_its_place(tokenizer, tmp_path, name, text, message):
    own = copy.copy(tokenizer)
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        set_template(own, str(tmp_path / name) if "." in name else name)


def test_a_file_of_ones_own(tokenizer, tmp_path):
    own, file = copy.copy(tokenizer), tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}")
    set_template(own, str(file))
    assert render(own, TALKS["plain"]) == "Explain SGD.SGD is ..."


def test_templates_are_plain_jinja():
    """No filter or tag that other programs which read the template (llama.cpp, vLLM) have not."""
    environment = Environment()
    known = {"tojson", "trim", "list", "selectattr", "capitalize"}
    for name, word in product(NAMED, ("strftime_now", "generation ", "break", "continue")):
        assert word not in NAMED[name].replace("add_generation", "")
    for text in NAMED.values():
        used = {node.name for node in environment.parse(text).find_all(nodes.Filter)}
        assert used <= known
