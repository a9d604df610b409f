"""Does the trainer's model reproduce what others published? Three rows fit it, all others judge it.

published_h100.toml --fit rows--> Efficiency --every row--> predicted against published tokens/s a GPU
"""

import tomllib
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Literal

import msgspec

from apriel_mcore.planning.flops import Decoder
from apriel_mcore.planning.hardware import Efficiency, Profile
from apriel_mcore.planning.trainer import Layout, Load, StepTime, step_time

_FIT_ROUNDS = 30
_BISECTIONS = 40


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One published training run."""

    model: str
    gpus: int
    fp8: bool
    seq_len: int
    global_batch: int
    micro_batch: int
    tensor: int
    pipeline: int
    virtual: int
    context: int
    tokens_per_s_per_gpu: float
    use: Literal["fit", "held_out"]
    source: str

    @property
    def layout(self) -> Layout:
        """As the source ran it; those recipes overlap tensor and data traffic."""
        return Layout(
            tensor=self.tensor,
            pipeline=self.pipeline,
            virtual=self.virtual,
            context=self.context,
            data=self.gpus // (self.tensor * self.pipeline * self.context),
            fp8=self.fp8,
            overlaps_tensor=True,
            overlaps_data=True,
        )

    @property
    def load(self) -> Load:
        """Full sequences, no padding."""
        return Load(
            micro_batches=self.global_batch // (self.layout.data * self.micro_batch),
            tokens=self.micro_batch * self.seq_len,
            context=self.seq_len,
        )


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows and the models that they name."""

    models: dict[str, Decoder]
    rows: list[Row]

    def step(self, row: Row, profile: Profile) -> StepTime:
        """The modelled step of a row."""
        return step_time(self.models[row.model], row.layout, row.load, profile)

    def predicted(self, row: Row, profile: Profile) -> float:
        """Tokens/s a GPU."""
        tokens = row.global_batch * row.seq_len / row.gpus
        return tokens / self.step(row, profile).total

    def error(self, row: Row, profile: Profile) -> float:
        """Predicted over published, minus one."""
        return self.predicted(row, profile) / row.tokens_per_s_per_gpu - 1


def read() -> Table:
    """The rows that ship."""
    path = files("apriel_mcore.planning") / "profiles" / "published_h100.toml"
    return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Table)


def fit(table: Table, profile: Profile) -> Profile:
    """gemm_bf16, tensor_exposed and gemm_fp8 such that the three fit rows come out, blind to all others.

    The rows are bf16 without tensor ranks, bf16 with them and FP8 with them, so each decides one number.
    """
    plain, tensor, fp8 = _fit_rows(table)
    for _ in range(_FIT_ROUNDS):
        profile = _solve(profile, "gemm_bf16", lambda p: table.error(plain, p), rising=True)
        profile = _solve(profile, "tensor_exposed", lambda p: table.error(tensor, p), rising=False)
        profile = _solve(profile, "gemm_fp8", lambda p: table.error(fp8, p), rising=True)
        if max(abs(table.error(row, profile)) for row in (plain, tensor, fp8)) < 1e-6:
            break
    return profile


def _fit_rows(table: Table) -> tuple[Row, Row, Row]:
    rows = [row for row in table.rows if row.use == "fit"]
    (plain,) = (row for row in rows if not row.fp8 and row.tensor == 1)
    (tensor,) = (row for row in rows if not row.fp8 and row.tensor > 1)
    (fp8,) = (row for row in rows if row.fp8)
    return plain, tensor, fp8


def _solve(profile: Profile, field: str, error: Callable[[Profile], float], *, rising: bool) -> Profile:
    """Bisect one efficiency in [0, 1]; an error that cannot reach zero there stays, and is printed."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        too_fast = error(_with(profile, field, middle)) > 0
        low, high = (low, middle) if too_fast == rising else (middle, high)
    return _with(profile, field, (low + high) / 2)


def _with(profile: Profile, field: str, value: float) -> Profile:
    efficiency: Efficiency = msgspec.structs.replace(profile.efficiency, **{field: value})
    return msgspec.structs.replace(profile, efficiency=efficiency)


def lines(table: Table, profile: Profile) -> Sequence[str]:
    """A Markdown table, fit rows first, and a summary of the held-out ones."""
    head = "| use | model | GPUs | precision | TP x PP x CP | published | predicted | error | source |"
    found = [head, "|---|---|---|---|---|---|---|---|---|"]
    for row in sorted(table.rows, key=lambda row: row.use):
        found.append(
            f"| {row.use} | {row.model} | {row.gpus} | {'FP8' if row.fp8 else 'BF16'} | "
            f"{row.tensor} x {row.pipeline} x {row.context} | {row.tokens_per_s_per_gpu:.0f} | "
            f"{table.predicted(row, profile):.0f} | {table.error(row, profile):+.1%} | {row.source} |"
        )
    held_out = [abs(table.error(row, profile)) for row in table.rows if row.use == "held_out"]
    within = sum(error <= 0.10 for error in held_out)
    eff = profile.efficiency
    return [
        *found,
        "",
        f"held out: {within} of {len(held_out)} within 10%, worst {max(held_out):.1%}, "
        f"mean {sum(held_out) / len(held_out):.1%}",
        f"fitted: gemm_bf16 = {eff.gemm_bf16:.4f}, tensor_exposed = {eff.tensor_exposed:.4f}, "
        f"gemm_fp8 = {eff.gemm_fp8:.4f}",
    ]
