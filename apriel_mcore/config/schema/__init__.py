"""What may stand in a recipe: one frozen struct per section, unknown keys refused.

Variants are tagged unions on `kind`; there is no None and no default outside this folder. Limits are
types; rules across fields live in `__post_init__` of the smallest section that sees them all.
"""

from apriel_mcore.config.schema.data import (
    CurriculumSettings,
    Data,
    Domain,
    JsonlSource,
    NoCurriculum,
    PuzzleSource,
    Sampler,
    SolveRateCurriculum,
    Source,
    TemplateSource,
)
from apriel_mcore.config.schema.fields import Section
from apriel_mcore.config.schema.fp8 import (
    BlockwiseFp8,
    DelayedFp8,
    EmulatedFp8,
    EngineFp8,
    Fp8,
    Mxfp8,
    NoFp8,
    TensorwiseFp8,
    bf16_layers,
    keeps_params,
)
from apriel_mcore.config.schema.mixture import (
    ConstantMixture,
    MixtureTargets,
    RewardGapMixture,
    Stage,
    StagedMixture,
)
from apriel_mcore.config.schema.model import FolderModel, WheelModel
from apriel_mcore.config.schema.objective import (
    Advantage,
    DifficultyAwareLengthPenalty,
    LengthPenalty,
    Loss,
    NoLengthPenalty,
    Reward,
    StandardLengthPenalty,
)
from apriel_mcore.config.schema.publish import ArenaPublish, StreamPublish
from apriel_mcore.config.schema.rollout import LocalServers, RemoteServers, RolloutSection
from apriel_mcore.config.schema.run import Eval, RunConfig, Track
from apriel_mcore.config.schema.train import Checkpoint, Cluster, Optimizer, Parallel, Train
from apriel_mcore.config.schema.verify import (
    BwrapSandbox,
    FusionSandbox,
    LandlockSandbox,
    RemoteVerify,
    Verify,
)

__all__ = [
    "Advantage",
    "ArenaPublish",
    "BlockwiseFp8",
    "BwrapSandbox",
    "Checkpoint",
    "Cluster",
    "ConstantMixture",
    "CurriculumSettings",
    "Data",
    "DelayedFp8",
    "DifficultyAwareLengthPenalty",
    "Domain",
    "EmulatedFp8",
    "EngineFp8",
    "Eval",
    "FolderModel",
    "Fp8",
    "FusionSandbox",
    "JsonlSource",
    "LandlockSandbox",
    "LengthPenalty",
    "LocalServers",
    "Loss",
    "MixtureTargets",
    "Mxfp8",
    "NoCurriculum",
    "NoFp8",
    "NoLengthPenalty",
    "Optimizer",
    "Parallel",
    "PuzzleSource",
    "RemoteServers",
    "RemoteVerify",
    "Reward",
    "RewardGapMixture",
    "RolloutSection",
    "RunConfig",
    "Sampler",
    "Section",
    "SolveRateCurriculum",
    "Source",
    "Stage",
    "StagedMixture",
    "StandardLengthPenalty",
    "StreamPublish",
    "TemplateSource",
    "TensorwiseFp8",
    "Track",
    "Train",
    "Verify",
    "WheelModel",
    "bf16_layers",
    "keeps_params",
]
