"""What does the model read? Messages, rendered with its own chat template and tokenizer."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import TemplateError

from apriel_mcore.errors import InputError
from apriel_mcore.types import Message
from apriel_mcore.verify.answer import THINKS

_PROBE = "zqxj"
"""Text that no chat template contains."""


class Renderer:
    """Text to token ids and back for one model folder. Imports transformers (seconds) when constructed.

    Some templates insert a system turn of their own when a chat has none. This class never lets them: a
    chat without a system message is rendered with an empty one where the template would insert its own
    (5 tokens in ChatML), and with none at all elsewhere. The quickstart model's converted template
    inserts nothing (data/gguf.py).
    """

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the feed forks judges after this
        from transformers import AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: its tokenizer cannot be loaded: {error}") from error
        if not self._tokenizer.chat_template:
            raise InputError(f"{folder}: the tokenizer has no chat template; use an instruction-tuned model")
        self._folder = folder
        self._takes_system, self._inserts_system = self._probe_system()
        self._takes_tools = self._probe_tools()
        self.prefill = self._probe_prefill()
        """How the header of an answer begins to think for the model, whose own text does not show that."""
        self.vocab_size = len(self._tokenizer)
        self.stop_ids = self._stop_ids()

    def render(self, messages: Sequence[Message], *, tools: Sequence[dict[str, Any]] = ()) -> tuple[int, ...]:
        """Token ids of the chat with the header of the answer after it.

        `tools` are functions as JSON Schema, for the template. InputError when the model's template has no
        place for one of the roles, or for tools.
        """
        if tools and not self._takes_tools:
            raise InputError(
                f"{self._folder}: its chat template has no place for functions; "
                'set `tools = "system"` in the domain'
            )
        chat = list(messages)
        has_system = any(message.role == "system" for message in chat)
        if has_system and not self._takes_system:
            raise InputError(f"{self._folder}: its chat template drops system messages; leave `system` empty")
        if self._inserts_system and not has_system:
            chat.insert(0, Message("system", ""))
        text = self._text(chat, tools)
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a piece of an answer."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def encode_with_ends(self, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of a piece of an answer, and where in the text each token ends."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return tuple(encoded["input_ids"]), tuple(end for _, end in encoded["offset_mapping"])

    def decode(self, tokens_T: Sequence[int]) -> str:
        """Text of an answer, without special tokens."""
        return self._tokenizer.decode(list(tokens_T), skip_special_tokens=True)

    def decode_all(self, tokens_T: Sequence[int]) -> str:
        """Text of a prompt as it is, special tokens included."""
        return self._tokenizer.decode(list(tokens_T))

    def _text(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> str:
        chat = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self._tokenizer.apply_chat_template(
                chat, tools=list(tools) or None, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise InputError(f"{self._folder}: its chat template refuses this chat: {error}") from None

    def _probe_system(self) -> tuple[bool, bool]:
        """Whether the template renders a system message, and whether it makes one up when there is none.

        It makes one up if a chat without system starts and ends as one with a system message does.
        """
        question = Message("user", "?")
        try:
            with_system = self._text([Message("system", _PROBE), question])
        except InputError:
            return False, False
        head, found, tail = with_system.partition(_PROBE)
        if not found:
            return False, False
        without = self._text([question])
        return True, without.startswith(head) and without.endswith(tail)

    def _probe_prefill(self) -> str:
        """The opening of a thought, with the space after it, where the header of an answer ends with one."""
        header = self._text([Message("user", _PROBE)]).rpartition(_PROBE)[2]
        opened = next((mark for mark in THINKS if header.rstrip().endswith(mark)), "")
        return header[header.rindex(opened) :] if opened else ""

    def _probe_tools(self) -> bool:
        """Whether the template shows a function that it is given."""
        tool = {"type": "function", "function": {"name": _PROBE, "description": "", "parameters": {}}}
        return _PROBE in self._text([Message("user", "?")], [tool])

    def _stop_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: the tokenizer's, then those of generation_config.json."""
        stops = [] if self._tokenizer.eos_token_id is None else [self._tokenizer.eos_token_id]
        file = self._folder / "generation_config.json"
        if file.is_file():
            listed = msgspec.json.decode(file.read_bytes(), type=_GenerationConfig).eos_token_id
            stops += [listed] if isinstance(listed, int) else listed
        if not stops:
            raise InputError(
                f"{self._folder}: neither the tokenizer nor generation_config.json names an end token"
            )
        return tuple(dict.fromkeys(stops))


class _GenerationConfig(msgspec.Struct, frozen=True):
    eos_token_id: int | list[int] = []
