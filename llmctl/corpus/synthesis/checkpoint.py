"""The generator that is a model of this machine: a folder or a name of the hub."""

from collections.abc import Sequence

from llmctl.corpus.synthesis.generator import Request

BATCH = 8  # prompts of some 3,000 tokens at once
NEW_TOKENS = 768  # of a reply: 400 words, as texts are asked for, and room for markup


class CheckpointWriter:
    def __init__(self, place: str, new_tokens: int | None = None) -> None:
        """Raises:
        UserError: nothing there, or no causal language model with its tokenizer.
        """
        import torch

        from llmctl.model.load import load_model
        from llmctl.tokens.tokenizer import load_tokenizer

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = load_tokenizer(place)
        self._model = load_model(place, device).eval()
        if device == "cuda":
            self._model = self._model.to(torch.bfloat16)
        self._new_tokens = new_tokens or NEW_TOKENS

    def write(self, requests: Sequence[Request]) -> list[str]:
        """Greedy replies; an empty one to a prompt that leaves no room in the model's context."""
        from llmctl.model.generate import generate
        from llmctl.tokens.template import end_of_turn_ids

        prompts = [self._rendered(request.prompt) for request in requests]
        room = self._model.config.max_position_embeddings - self._new_tokens
        lengths = [len(self._tokenizer(prompt, add_special_tokens=False)["input_ids"]) for prompt in prompts]
        fitting = [number for number, length in enumerate(lengths) if length <= room]
        stops = end_of_turn_ids(self._tokenizer) if self._tokenizer.chat_template else [self._tokenizer.eos_token_id]
        replies = [""] * len(prompts)
        for start in range(0, len(fitting), BATCH):
            some = fitting[start : start + BATCH]
            written = generate(self._model, self._tokenizer, [prompts[number] for number in some], self._new_tokens, stops)
            for number, generation in zip(some, written, strict=True):
                replies[number] = generation.text
        return replies

    def _rendered(self, prompt: str) -> str:
        """The prompt as a question in the chat template, where the tokenizer has one."""
        from llmctl.tokens.template import render

        if not self._tokenizer.chat_template:
            return prompt
        return render(self._tokenizer, [{"role": "user", "content": prompt}], prompt=True)
