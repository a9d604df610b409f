"""Takes weight versions that the trainer wrote into a folder which this host sees.

    pool --read_files--> worker: a thread waits for the folder, reads and checks it; requests go on
    pool --files_are_read--> worker: is the thread done?
    pool --take_files--> worker: engine: reload --> receipt

A server that comes later reads the version that stands when it is asked to take it. Importing this module
puts the `apriel_files` backend into vLLM's weight-transfer registry.
"""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.distributed.weight_transfer.base import WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from apriel_mcore.bridge.version_folder import MANIFEST, read_version
from apriel_mcore.errors import AprielError, BridgeError
from apriel_mcore.rollout.inside_vllm.reload import Published, WholeModelEngine
from apriel_mcore.seams import Sent

BACKEND = "apriel_files"
_POLL_S = 0.1


@dataclass
class FilesUpdate(WeightTransferUpdateInfo):
    """A version as the trainer announced it."""

    folder: str
    version: int
    digest: str
    wait_s: int


class FilesEngine(WholeModelEngine[FilesUpdate]):
    """Reads on a thread, swaps when asked; `receipt` tells what was read."""

    update_info_cls = FilesUpdate

    def __init__(
        self,
        config: WeightTransferConfig,
        vllm_config: VllmConfig,
        device: torch.device,
        model: torch.nn.Module,
    ) -> None:
        super().__init__(config, vllm_config, device, model)
        self._reading: _Reading | None = None
        self.receipt = Sent(num_tensors=0, num_bytes=0, digest="")
        """Of the last version that was swapped in."""

    def begin_to_read(self, update: FilesUpdate) -> None:
        """Starts the thread; BridgeError while an earlier one is still waiting for its folder."""
        if not self.is_read:
            raise BridgeError("still reading the version before; try again when that has timed out")
        self._reading = _Reading(update)

    @property
    def is_read(self) -> bool:
        """No thread is at work: the version is here, or a failure that `receive_weights` will tell."""
        return self._reading is None or not self._reading.is_alive()

    def receive_weights(self, update_info: FilesUpdate) -> None:
        """Swap in the version; BridgeError, with the model untouched, when it is not what was announced."""
        reading, self._reading = self._reading, None
        if reading is None or reading.update != update_info:
            reading = _Reading(update_info)
        tensors, receipt = reading.outcome()
        published = {
            name: Published(tuple(tensor.shape), fp8=tensor.dtype == torch.float8_e4m3fn)
            for name, tensor in tensors.items()
        }
        self.check_complete(published, where=update_info.folder)
        self.replace_all(tensors.items())
        self.receipt = msgspec.structs.replace(receipt, quantised=self.quantised)


class _Reading(threading.Thread):
    """One version on its way into this process, checked against what was announced."""

    def __init__(self, update: FilesUpdate) -> None:
        super().__init__(name="weights", daemon=True)
        self.update = update
        self._failure = ""
        self._found: tuple[dict[str, Tensor], Sent] | None = None
        self.start()

    def run(self) -> None:
        """Wait for the folder, read it."""
        folder = Path(self.update.folder)
        deadline = time.monotonic() + self.update.wait_s
        try:
            while not (folder / MANIFEST).exists():
                if time.monotonic() > deadline:
                    raise BridgeError(
                        f"{folder} did not appear on this host within {self.update.wait_s} s "
                        "(publish.arrival_timeout_s): do trainer and server share publish.folder?"
                    )
                time.sleep(_POLL_S)
            self._found = read_version(folder, self.update.version, self.update.digest)
        except (AprielError, OSError) as error:
            self._failure = f"{type(error).__name__}: {error}"

    def outcome(self) -> tuple[dict[str, Tensor], Sent]:
        """The tensors and what was read; waits for them. BridgeError when it went wrong."""
        self.join()
        if self._found is None:
            raise BridgeError(f"version {self.update.version} was not read: {self._failure}")
        return self._found


class FilesReceiver:
    """Mixed into vLLM's worker class; its methods are called through `/collective_rpc`."""

    weight_transfer_engine: FilesEngine

    def read_files(self, folder: str, version: str, digest: str, wait_s: str, member: str) -> dict[str, Any]:
        """Begin to read a version; returns at once. Every server reads the same, whatever its number."""
        update = FilesUpdate(folder=folder, version=int(version), digest=digest, wait_s=int(wait_s))
        self.weight_transfer_engine.begin_to_read(update)
        return {"version": int(version)}

    def files_are_read(self) -> dict[str, bool]:
        """Whether nothing more will come. A record, because vLLM makes texts of bare values."""
        return {"arrived": self.weight_transfer_engine.is_read}

    def take_files(self, folder: str, version: str, digest: str, wait_s: str) -> dict[str, Any]:
        """Swap in a version that was, or is to be, read; the version and what was read."""
        update = {"folder": folder, "version": int(version), "digest": digest, "wait_s": int(wait_s)}
        self.start_weight_update()  # pyright: ignore[reportAttributeAccessIssue]  (vLLM's worker has it)
        self.update_weights(update)  # pyright: ignore[reportAttributeAccessIssue]
        self.finish_weight_update()  # pyright: ignore[reportAttributeAccessIssue]
        return {"version": int(version), "read": msgspec.structs.asdict(self.weight_transfer_engine.receipt)}


WeightTransferEngineFactory.register_engine(BACKEND, FilesEngine)
