"""The judges: processes here or services elsewhere, and what model-written code may use."""

from typing import Annotated

from msgspec import Meta

from apriel_mcore.config.schema.fields import Positive, PositiveFloat, Section, Url


class BwrapSandbox(Section, frozen=True, kw_only=True, tag_field="kind", tag="bwrap"):
    """bubblewrap's namespaces and a system-call filter; needs unprivileged user namespaces."""


class LandlockSandbox(Section, frozen=True, kw_only=True, tag_field="kind", tag="landlock"):
    """Landlock and a system-call filter, where namespaces are not to be had; Linux 6.2 or newer."""


class FusionSandbox(Section, frozen=True, kw_only=True, tag_field="kind", tag="sandbox_fusion"):
    """A SandboxFusion service, which isolates in its own way; only the verdict is formed here."""

    url: str
    """Without the path, as http://HOST:8080."""


Sandbox = BwrapSandbox | LandlockSandbox | FusionSandbox


class Verify(Section, frozen=True, kw_only=True, tag_field="kind", tag="local"):
    """Judge processes on this host and their limits."""

    workers: Positive = 2
    slow_workers: Positive = 1
    """Besides those, at a lower priority, for answers that are likely to take long."""
    deadline_s: PositiveFloat = 10.0
    """For one answer; then its process is killed, and there is no verdict."""
    sandbox: Sandbox = BwrapSandbox()
    """How model-written code runs; never another one than this."""
    logic_solved_at: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Score of a reasoning-gym task from which on its puzzle counts as solved; below 1, near misses do."""
    math_tolerance: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Relative to the gold's size, for numbers of which one is written with a decimal point; integers,
    fractions and roots are always exact. At 0 a decimal is the fraction that it spells: 0.333 is not 1/3."""
    code_cpu_s: PositiveFloat = 3.0
    code_memory_mib: Positive = 512
    worker_memory_mib: Positive = 4096
    """Address space of a judge; a parser that wants more has crashed."""
    jobs_per_worker: Positive = 5000
    """Then a fresh process: parsers and caches leak."""

    def __post_init__(self) -> None:
        needed_s = (self.code_cpu_s + 1) / 0.45
        if self.deadline_s < needed_s:
            raise ValueError(
                f"code_cpu_s = {self.code_cpu_s:g} needs deadline_s of at least {needed_s:.3g}, found "
                f"{self.deadline_s:g}: a program that computes must end as such, not as a lost verdict"
            )


class RemoteVerify(Section, frozen=True, kw_only=True, tag_field="kind", tag="urls"):
    """Services that `apriel serve-verifiers` runs on other hosts."""

    urls: Annotated[list[Url], Meta(min_length=1)]
    """Without a path, as http://HOST:8800."""
    token_file: str
    """A file with the secret that the services were started with."""
    requests_per_url: Positive = 32
    """Sent to one service at once; further ones wait here."""
    deadline_s: PositiveFloat = 60.0
    """For one request, its wait in the service's queue included; then it is asked elsewhere."""
