"""Generators that are models: an endpoint on this machine, and a checkpoint that writes garbage."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from synthetic_text import document

from llmctl.corpus.synthesis.endpoint import Endpoint, completions_address
from llmctl.corpus.synthesis.generator import CountRequest, open_generator
from llmctl.corpus.synthesis.make import synthesize
from llmctl.corpus.synthesis.tally import Tally
from llmctl.errors import UserError
from llmctl.recipe.long_schema import SyntheticTable

KEY = "secret-key-1234"
Reply = tuple[int, Any]


@contextmanager
def serving(*replies: Reply, wait: float = 0.0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a server that gives these replies, the last one over and over, and the requests that it has got."""
    seen: list[dict[str, Any]] = []
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"path": self.path, "key": self.headers["Authorization"], "body": body})
            stop.wait(wait)
            status, said = replies[min(len(seen), len(replies)) - 1]
            said = said(body) if callable(said) else said
            data = (said if isinstance(said, str) else json.dumps(said)).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:9/v1")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: Any) -> None:
            """A client that did not wait is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


def says(text: str | None) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def echo(body: dict[str, Any]) -> dict[str, Any]:
    return says(body["messages"][0]["content"])


def endpoint(base: str, timeout: float = 5.0) -> Endpoint:
    return Endpoint(base, "tiny", "LLMCTL_TEST_KEY", timeout, pause=0.01)


def asks(*prompts: str) -> list[CountRequest]:
    return [CountRequest(prompt, "", {}) for prompt in prompts]


@pytest.fixture(autouse=True)
def key(monkeypatch) -> None:
    monkeypatch.setenv("LLMCTL_TEST_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_an_endpoint_is_asked_for_a_few_at_a_time_and_replies_keep_their_order():
    def slow_at_first(body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.1 if body["messages"][0]["content"] == "0" else 0)
        return echo(body)

    with serving((200, slow_at_first)) as (base, seen):
        prompts = [str(number) for number in range(20)]
        assert endpoint(base).write(asks(*prompts)) == prompts
    assert {request["path"] for request in seen} == {"/v1/chat/completions"}
    assert {request["key"] for request in seen} == {f"Bearer {KEY}"}
    assert seen[0]["body"]["model"] == "tiny"


def test_no_key_is_sent_where_none_is_set(monkeypatch):
    monkeypatch.delenv("LLMCTL_TEST_KEY")
    with serving((200, says("yes"))) as (base, seen):
        endpoint(base).check()
    assert seen[0]["key"] is None


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("http://h:1", "/v1/chat/completions"),
        ("http://h:1/", "/v1/chat/completions"),
        ("http://h:1/v1", "/v1/chat/completions"),
        ("https://h/api/v1/", "/api/v1/chat/completions"),
        ("https://h/v1beta/openai", "/v1beta/openai/chat/completions"),
        ("https://h/v1/chat/completions", "/v1/chat/completions"),
    ],
)
def test_the_address_may_have_its_version_or_not(base, path):
    assert completions_address(base) == "/".join(base.split("/")[:3]) + path


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_is_busy_is_asked_again(status):
    with serving((status, "busy"), (200, says("done"))) as (base, seen):
        assert endpoint(base).write(asks("a")) == ["done"]
    assert len(seen) == 2


def test_a_server_that_stays_busy_is_told_with_its_address_and_reason():
    with serving((429, f"too many requests for {KEY}")) as (base, seen), pytest.raises(UserError) as told:
        endpoint(base).write(asks("a"))
    assert len(seen) == 3
    assert base in str(told.value)
    assert "HTTP 429 too many requests" in str(told.value)
    assert KEY not in str(told.value)


def test_a_server_that_never_answers_is_told_quickly():
    began = time.monotonic()
    with serving((200, says("late")), wait=20.0) as (base, seen):
        with pytest.raises(UserError, match=r"no answer after 3 tries: it took more than 0.1 s.*template"):
            endpoint(base, timeout=0.1).check()
        assert time.monotonic() - began < 5
        assert len(seen) == 3


def test_nobody_at_the_address():
    with serving((200, "")) as (base, _):
        pass
    with pytest.raises(UserError, match="Connection refused"):
        endpoint(base).check()


@pytest.mark.parametrize(
    ("status", "said", "told"),
    [
        (401, f"wrong key {KEY}", "environment variable LLMCTL_TEST_KEY, and what it holds is refused"),
        (404, "no such model", r"does it have the model 'tiny' \(\[longctx.synthetic\] model\)"),
        (400, "bad", "refused with HTTP 400: 'bad'"),
        (302, "elsewhere", "refused with HTTP 302"),
        (200, "<html>hello</html>", "no chat completion: '<html>hello"),
        (200, {"choices": []}, "no chat completion"),
    ],
)
def test_a_refusal_is_told_at_once_with_what_to_do(status, said, told):
    with serving((status, said)) as (base, seen), pytest.raises(UserError, match=told) as raised:
        endpoint(base).check()
    assert len(seen) == 1
    assert KEY not in str(raised.value)


def test_the_limit_is_renamed_for_models_that_want_it_so():
    wants = (400, "Unsupported parameter: use max_completion_tokens")
    with serving(wants, (200, says("yes"))) as (base, seen):
        asked = endpoint(base)
        assert asked.write(asks("a")) == ["yes"]
        asked.check()
    assert ["max_completion_tokens" in request["body"] for request in seen] == [False, True, True]


def test_a_reply_without_text_is_nothing_written():
    with serving((200, says(None))) as (base, _):
        assert endpoint(base).write(asks("a")) == [""]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_prompt_that_is_refused_is_nothing_written(status):
    with serving((200, says("yes")), (status, "too long"), (200, echo)) as (base, seen):
        asked = endpoint(base)
        asked.check()
        assert asked.write(asks("a")) == [""]
        assert asked.write(asks("b")) == ["b"]
    assert len(seen) == 3


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_key_or_model_that_is_refused_later_ends_the_stage(status):
    with serving((200, says("yes")), (status, "no")) as (base, _):
        asked = endpoint(base)
        asked.check()
        with pytest.raises(UserError, match=f"refused with HTTP {status}"):
            asked.write(asks("a"))


def test_a_recipe_s_endpoint_is_checked_before_any_work():
    with serving((200, says("yes"))) as (base, seen):
        table = SyntheticTable(generator=base, model="tiny", api_key_variable="LLMCTL_TEST_KEY")
        open_generator(table, 1)
        assert len(seen) == 1
        with pytest.raises(UserError, match=r"\[longctx.synthetic\] model is missing"):
            open_generator(table.model_copy(update={"model": None}), 1)
        with pytest.raises(UserError, match="password") as told:
            open_generator(table.model_copy(update={"generator": "http://me:hush@host/v1"}), 1)
        assert "hush" not in str(told.value)


@pytest.mark.parametrize("kind", ["cwe", "rex"])
def test_a_document_through_an_endpoint(kind):
    """The model repeats the words and numbers that it is given, and so a question of each kind of fault comes about."""

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        asked = body["messages"][0]["content"]
        if kind == "rex":
            phrase = asked.split('the phrase "')[1].split('"')[0]
            return says(f"{len(asked)} words are said about the {phrase} here. " + "And then they sail home again. " * 9)
        counts = json.loads(asked.split("Words and numbers: ")[1].split("\n")[0])
        items = [{"question": f"How often {word}?", "answer": count} for word, count in counts.items()]
        items[0]["answer"] += 1
        return says("Sure!\n```json\n" + json.dumps(items) + "\n```")

    tally = Tally()
    with serving((200, reply)) as (base, seen):
        (made,) = synthesize(kind, [document(40)], endpoint(base), 1, tally)
    assert tally.asked == len(seen)
    assert made.text.count("Question: ") == (tally.kept if kind == "cwe" else 0)
    assert tally.dropped["wrong count"] == (tally.asked if kind == "cwe" else 0)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory, tokenizer) -> str:
    from llmctl.model.build import ModelShape, build_model
    from llmctl.model.load import save_model

    shape = ModelShape(32, 1, 2, 2, 16, 64, 64, len(tokenizer), 8192)
    folder = tmp_path_factory.mktemp("random") / "model"
    save_model(build_model(shape, 1), tokenizer, folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["cwe", "rex"])
def test_garbage_of_a_checkpoint_is_dropped_and_counted(kind, random_model, monkeypatch):
    monkeypatch.setattr("llmctl.corpus.synthesis.checkpoint.NEW_TOKENS", 24)
    tally = Tally()
    generator = open_generator(SyntheticTable(generator=random_model), 1)
    assert list(synthesize(kind, [document(16)], generator, 1, tally)) == []
    assert tally.asked >= 2
    assert tally.dropped.total() == tally.asked
    assert tally.left_out == {"fewer than 2 good tasks": 1}


def test_a_prompt_without_room_in_the_context_gets_nothing(random_model):
    from llmctl.corpus.synthesis.checkpoint import CheckpointWriter

    writer = CheckpointWriter(random_model, new_tokens=4)
    short, long = writer.write(asks("The tide", "0 1 2 3 4 5 6 7 8 9 " * 1000))
    assert short
    assert long == ""


def test_a_folder_that_is_no_model_is_told_at_once(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        open_generator(SyntheticTable(generator=str(tmp_path)), 1)
