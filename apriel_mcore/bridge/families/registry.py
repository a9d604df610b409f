"""Which family reads this config.json? Every family is listed here by hand.

config.json --(Llava: its text_config)--> the family's record, or one InputError that names all it refuses
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from apriel_mcore.bridge.families import llava
from apriel_mcore.bridge.families.decoder import DecoderConfig
from apriel_mcore.bridge.families.llama import Llama
from apriel_mcore.bridge.families.mistral import Mistral
from apriel_mcore.bridge.families.qwen2 import Qwen2
from apriel_mcore.bridge.families.qwen3 import Qwen3
from apriel_mcore.bridge.families.silent import SILENT
from apriel_mcore.errors import InputError

FAMILIES: tuple[type[DecoderConfig], ...] = (Llama, Mistral, Qwen2, Qwen3)


def read_decoder(config: Mapping[str, Any], *, where: str) -> tuple[DecoderConfig, str]:
    """The text decoder that a parsed config.json describes, and where its keys stand (for messages).

    InputError, which `where` opens, names every key that this code would compute otherwise.
    """
    if config.get("model_type") == llava.MODEL_TYPE:
        wrapper = _convert(config, llava.Llava, silent=SILENT | llava.IMAGES, where=where)
        return read_decoder(wrapper.decoder(), where=f"{where}: text_config")
    family = _family_of(config.get("model_type"), where=where)
    decoder = _convert(config, family, silent=SILENT, where=where)
    found = [words for words, refused in decoder.refusals().items() if refused]
    if found:
        raise InputError(f"{where}: not supported: {'; '.join(found)}")
    return decoder, where


def _family_of(model_type: object, *, where: str) -> type[DecoderConfig]:
    for family in FAMILIES:
        if family.model_type == model_type:
            return family
    names = ", ".join([*(family.model_type for family in FAMILIES), llava.MODEL_TYPE])
    raise InputError(
        f"{where}: model_type = {model_type!r} is not supported; use a dense decoder of {names}, "
        "or add its family (docs/how-to/add-a-model-family.md)"
    )


def _convert[Record: msgspec.Struct](
    config: Mapping[str, Any], kind: type[Record], *, silent: frozenset[str], where: str
) -> Record:
    """The keys that `kind` declares; InputError if others ask for something and are not silent."""
    asking = {name for name, value in config.items() if value is not None}
    known = {field.name for field in msgspec.structs.fields(kind)}
    if unknown := sorted(asking - known - silent - {"model_type"}):
        raise InputError(
            f"{where}: unknown keys for model_type = {config.get('model_type')!r}: {', '.join(unknown)}; "
            "they may change what the model computes: take out those that do not"
        )
    try:
        return msgspec.convert(config, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {error}") from None
