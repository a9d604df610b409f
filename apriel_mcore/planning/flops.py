"""How much arithmetic and memory traffic is one token, by kind? Of a dense decoder, layer by layer.

Symbols as in docs/memory.md: h hidden size, q = heads x head size, k = groups x head size, f feed-forward
width, V vocabulary, s tokens of a sequence. A multiply-add is two FLOPs; attention is counted causally.
"""

import msgspec

from apriel_mcore.bridge.shape import ModelShape


class Decoder(msgspec.Struct, frozen=True, kw_only=True):
    """What costs time in a dense decoder; published models without a gate fit too."""

    num_layers: int
    hidden: int
    query: int
    """heads x head size."""
    key: int
    """groups x head size."""
    ffn: int
    gated: bool
    vocab: int

    @classmethod
    def of(cls, shape: ModelShape) -> "Decoder":
        """The costs of a model that this program trains."""
        return cls(
            num_layers=shape.num_layers,
            hidden=shape.hidden_size,
            query=shape.num_heads * shape.head_dim,
            key=shape.num_kv_heads * shape.head_dim,
            ffn=shape.ffn_size,
            gated=True,
            vocab=shape.vocab_size,
        )

    @property
    def layer_weights(self) -> int:
        """Of one layer's matrices: 2h(q + k) + 3hf, or 2hf without a gate."""
        return 2 * self.hidden * (self.query + self.key) + (3 if self.gated else 2) * self.hidden * self.ffn

    @property
    def head_weights(self) -> int:
        """hV."""
        return self.hidden * self.vocab

    @property
    def num_parameters(self) -> int:
        """Matrices, embedding and untied head."""
        return self.num_layers * self.layer_weights + 2 * self.head_weights

    def attention_flops(self, context: float) -> float:
        """Forward, of one layer for one token of a causal sequence of `context` tokens: 4q s/2."""
        return 2 * self.query * context

    def training_flops(self, context: float) -> float:
        """Per token, forward and backward (three times forward): what MFU divides by."""
        forward = 2 * (self.num_layers * self.layer_weights + self.head_weights)
        return 3 * (forward + self.num_layers * self.attention_flops(context))

    def kv_bytes(self, *, width: int) -> int:
        """Of one token in all layers' caches."""
        return 2 * width * self.num_layers * self.key


def elementwise_bytes(decoder: Decoder, *, fp8: bool) -> float:
    """Memory traffic of one layer for one token outside matrix products, forward and backward, bf16.

    Forward: two norms (read and write h), two residual sums (3h), rotation (2q + 2k), activation (3f gated,
    2f not). Backward: norms 5h each, residual sums 2h each, rotation again, activation 5f or 3f. With FP8
    every input of a matrix product is read in two bytes and written in one, straight and transposed.
    """
    h, rotated = decoder.hidden, 2 * (decoder.query + decoder.key)
    activation = 8 if decoder.gated else 5
    traffic = 2 * ((10 + 14) * h + 2 * rotated + activation * decoder.ffn)
    if not fp8:
        return traffic
    inputs = 2 * h + decoder.query + decoder.ffn
    gradients = decoder.query + 2 * decoder.key + 2 * h + (2 if decoder.gated else 1) * decoder.ffn
    return traffic + 4 * (inputs + gradients)


def head_bytes(decoder: Decoder) -> float:
    """Memory traffic of the loss for one token: float32 logits written, read for the softmax, their gradient
    written and read twice."""
    return 5 * 4 * decoder.vocab
