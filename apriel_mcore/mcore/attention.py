"""Core attention for Megatron's local layer spec: causal, over packed rows, context parallel.

A row packs sequences one behind the other (THD layout, cu_seqlens). Each is attended on its own, behind the
prompt that it may share with others (mcore/layout.py), so no mask of the whole row exists. Under context
parallelism of size cp, every sequence (padded to a multiple of 2 cp) is cut into 2 cp chunks and rank r holds
chunks r and 2 cp - 1 - r of every sequence, which balances causal work and is the layout of Transformer
Engine; keys and values are all-gathered.

Shapes: t tokens of the row on this rank, h heads, g key/value groups, d head size; t * cp in full rows.
"""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

import torch
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

from apriel_mcore.mcore.rows import RowPacking
from apriel_mcore.mcore.zigzag import zigzag_inverse


class PackedCausalAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v within each packed sequence, causally."""

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: Any,
        attention_type: str,
        *,
        cp_comm_type: str | None = None,
        softmax_scale: float | None = None,
        pg_collection: ProcessGroupCollection,
    ) -> None:
        """The arguments that Megatron's self-attention passes to its core."""
        super().__init__()
        self.context_group = pg_collection.cp
        self.scale = softmax_scale

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        attn_mask_type: Any = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: RowPacking,
    ) -> Tensor:
        """query [t, h, d]; key and value [t, g, d]; returns [t, 1, h * d]."""
        bounds = packed_seq_params.cu_seqlens_q.tolist()
        context = self.context_group.size()
        if context == 1:
            lengths = [end - start for start, end in pairwise(bounds)]
            # Split and not sliced: the gradient of a slice is a whole row of zeros.
            sequences = list(zip(*(tensor.split(lengths) for tensor in (query, key, value)), strict=True))
            outputs = []
            for prompt, run in groupby(range(len(sequences)), packed_seq_params.prompts.__getitem__):
                own = [sequences[i] for i in run]
                if prompt is None:
                    outputs += [self._attend(*sequence) for sequence in own]
                else:
                    outputs.append(self._attend_behind(sequences[prompt], own))
        else:
            whole = zigzag_inverse(bounds, context).to(query.device)
            key, value = (self._gathered(tensor, whole) for tensor in (key, value))
            outputs = []
            for start, end in pairwise(bounds):
                local = slice(start // context, end // context)
                outputs += self._attend_chunks(query[local], key[start:end], value[start:end])
        return torch.cat(outputs).reshape(query.shape[0], 1, -1)

    def _attend_behind(self, prompt: Sequence[Tensor], answers: Sequence[Sequence[Tensor]]) -> Tensor:
        """The tokens (query, key, value) of a prompt's answers, each behind the prompt, one behind the other.

        All at once, padded to the longest: what pads an answer comes after it, where causality hides it.
        """
        query, key, value = (pad_sequence(list(one), batch_first=True) for one in zip(*answers, strict=True))
        num_answers, longest = query.shape[:2]
        first = prompt[0].shape[0]
        key, value = (
            torch.cat([shared.expand(num_answers, -1, -1, -1), own], dim=1)
            for shared, own in ((prompt[1], key), (prompt[2], value))
        )
        mask = torch.ones(longest, first + longest, dtype=torch.bool, device=query.device).tril(first)
        lengths = torch.tensor([own[0].shape[0] for own in answers], device=query.device)
        real = torch.arange(longest, device=query.device) < lengths[:, None]
        return self._attend(query, key, value, mask)[real]

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """[..., s, h, d] over [..., s', g, d]: causal without a mask, else as the bool mask [s, s'] says."""
        shape, dtype = query.shape, query.dtype
        # In float32, because torch's CPU kernel takes twice as long for the backward of bf16 heads.
        query, key, value = (
            tensor.float().unsqueeze(0).flatten(0, -4).transpose(1, 2) for tensor in (query, key, value)
        )
        output = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=self.scale, enable_gqa=True
        )
        return output.transpose(1, 2).to(dtype).reshape(shape)

    def _attend_chunks(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """This rank's two chunks of one sequence against the keys up to each chunk's end."""
        chunk = query.shape[0] // 2
        rank, context = self.context_group.rank(), self.context_group.size()
        outputs = []
        for query_chunk, number in zip(query.split(chunk), (rank, 2 * context - 1 - rank), strict=True):
            start, end = number * chunk, (number + 1) * chunk
            mask = torch.ones(chunk, end, dtype=torch.bool, device=query.device).tril(diagonal=start)
            outputs.append(self._attend(query_chunk, key[:end], value[:end], mask))
        return outputs

    def _gathered(self, local: Tensor, whole: Tensor) -> Tensor:
        """Every rank's tokens in sequence order; backward sums the gradients of all ranks."""
        gathered = gather_from_sequence_parallel_region(local, group=self.context_group)
        return gathered[whole]
