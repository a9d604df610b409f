"""How does Megatron-Core, written for CUDA, run on a CPU? By answering its CUDA calls with the CPU.

Megatron 0.19 names the device "cuda" literally in its schedules, optimizers and masks, and asks
torch.cuda for the current device, streams, events and generator states. `enter` answers all of that for
the whole process: tensor functions through a TorchFunctionMode (literal devices become the CPU; tensors
claim to be CUDA tensors where Megatron asks for a type name), torch.cuda through stand-ins below.

A function mode is not active inside autograd's backward, so the one mask that recomputation builds there
is replaced by name. Nothing here runs when a CUDA device is visible, and no other module patches torch
or Megatron. Enter it in trainer processes only: it changes what torch.cuda means.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from apriel_mcore.errors import InputError

CPU = torch.device("cpu")

_IS_CUDA = torch.Tensor.is_cuda.__get__  # pyright: ignore[reportAttributeAccessIssue]
_STAYS = (torch.Tensor.cuda, torch.Tensor.pin_memory)
_IGNORED = (torch.Tensor.record_stream,)

_entered: list[TorchFunctionMode] = []


class _CudaMeansCpu(TorchFunctionMode):
    """Tensor functions that mention CUDA, answered by the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _STAYS:
            return args[0]
        if func in _IGNORED:
            return None
        if func == _IS_CUDA:  # a new getter object at every access: == holds where `is` does not
            return True
        if func is torch.Tensor.type and len(args) == 1 and not kwargs:
            return func(args[0]).replace("torch.", "torch.cuda.", 1)
        kwargs = dict(kwargs or {})
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        if "device" in kwargs:
            kwargs["device"] = _on_cpu(kwargs["device"])
        return func(*map(_on_cpu, args), **kwargs)


def _on_cpu(argument: Any) -> Any:
    """A CUDA device, as object or string, becomes the CPU; anything else passes."""
    if isinstance(argument, torch.device):
        return CPU if argument.type == "cuda" else argument
    if isinstance(argument, str) and (argument == "cuda" or argument.startswith("cuda:")):
        return CPU
    return argument


class _Stream:
    """The one queue of a CPU: everything issued before has finished."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...
    def wait_stream(self, _stream: Any) -> None: ...
    def wait_event(self, _event: Any) -> None: ...
    def synchronize(self) -> None: ...

    def record_event(self, _event: Any = None) -> "_Event":
        return _Event()


class _Event:
    """A point that has always been reached."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...
    def record(self, _stream: Any = None) -> None: ...
    def wait(self, _stream: Any = None) -> None: ...
    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, _end: Any) -> float:
        return 0.0


@contextlib.contextmanager
def _on_stream(_stream: Any) -> Iterator[None]:
    yield


def _answers(value: Any) -> Callable[..., Any]:
    """A function of any arguments with one answer."""

    def answer(*_args: Any, **_kwargs: Any) -> Any:
        return value

    return answer


def _set_state(state: Tensor, *_args: Any, **_kwargs: Any) -> None:
    torch.set_rng_state(state)


def _get_state(*_args: Any, **_kwargs: Any) -> Tensor:
    return torch.get_rng_state()


_TORCH_CUDA: dict[str, Any] = {
    "current_device": _answers(CPU),
    "set_device": _answers(None),
    "synchronize": _answers(None),
    "empty_cache": _answers(None),
    "memory_allocated": _answers(0),
    "max_memory_allocated": _answers(0),
    "memory_reserved": _answers(0),
    "max_memory_reserved": _answers(0),
    "reset_peak_memory_stats": _answers(None),
    "get_device_capability": _answers((0, 0)),
    "is_current_stream_capturing": _answers(False),
    "Stream": _Stream,
    "Event": _Event,
    "stream": _on_stream,
    "current_stream": _answers(_Stream()),
    "default_stream": _answers(_Stream()),
    "manual_seed": torch.default_generator.manual_seed,  # not torch.manual_seed, which calls the next one
    "manual_seed_all": _answers(None),
    "get_rng_state": _get_state,
    "set_rng_state": _set_state,
}


def enter() -> None:
    """Makes the CPU stand in for CUDA in this process; a second call does nothing.

    Raises InputError when a CUDA device is visible: such a process must train on it, or hide it.
    """
    if _entered:
        return
    if torch.cuda.is_available():
        raise InputError(
            'train.device = "cpu", but this process sees a CUDA device: set train.device = "cuda", '
            'or hide the device with CUDA_VISIBLE_DEVICES=""'
        )
    for name, stand_in in _TORCH_CUDA.items():
        setattr(torch.cuda, name, stand_in)
    _patch_megatron()
    mode = _CudaMeansCpu()
    mode.__enter__()
    _entered.append(mode)


def _patch_megatron() -> None:
    """Functions that bypass torch.cuda's public names, run where no function mode is active, or crawl."""
    from megatron.core.fusions import fused_softmax
    from megatron.core.models.common.embeddings import rope_utils
    from megatron.core.tensor_parallel import random as parallel_random
    from megatron.core.transformer import utils as transformer_utils

    def causal_mask(size: int) -> Tensor:
        return torch.ones(size, size, dtype=torch.bool).triu(diagonal=1)

    def rope_of_packed_rows(t: Tensor, places_S: Tensor, freqs: Tensor, **options: Any) -> Tensor:
        # Megatron rotates one sequence after the other: thousands of tiny operations per row. The
        # same rotation by one operation, each token at its place in its own text (mcore/rows.py).
        del options["cp_group"]
        return rope_utils._apply_rotary_pos_emb_bshd(t.unsqueeze(1), freqs[places_S], **options).squeeze(1)

    rope_utils._apply_rotary_pos_emb_thd = rope_of_packed_rows
    parallel_random._get_cuda_rng_state = _get_state
    parallel_random._set_cuda_rng_state = _set_state
    transformer_utils.get_default_causal_mask = causal_mask
    fused_softmax.get_default_causal_mask = causal_mask
