"""Weights from Megatron shards to the rollout servers."""
