"""In what does a server's answer to a version differ from what was sent?"""

from collections.abc import Sequence

import msgspec

from apriel_mcore.seams import Ack, Sent


def differences(ack: Ack, sent_R: Sequence[Sent], version: int) -> list[str]:
    """Each difference in words; nothing when all arrived.

    `sent_R` is what each tensor rank of a server must have read; one entry stands for all of them.
    """
    found = [f"{ack.server} has version {ack.version}, sent was {version}"] if ack.version != version else []
    expected_R = [*sent_R] * (len(ack.read_R) if len(sent_R) == 1 else 1)
    if len(ack.read_R) != len(expected_R):
        return [*found, f"{ack.server} has {len(ack.read_R)} tensor ranks, sent was to {len(expected_R)}"]
    for rank, (read, sent) in enumerate(zip(ack.read_R, expected_R, strict=True)):
        name = f"{ack.server} rank {rank}" if rank else ack.server
        theirs, ours = msgspec.structs.asdict(read), msgspec.structs.asdict(sent)
        found += [
            f"{name} has {key} {theirs[key]}, sent was {value}"
            for key, value in ours.items()
            if theirs[key] != value
        ]
    return found
