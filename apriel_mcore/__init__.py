"""apriel_mcore: reinforcement learning from verifiable rewards on Megatron-Core and vLLM."""

__version__ = "0.1.0"
