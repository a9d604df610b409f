"""Model folders to Megatron checkpoints and back, tensor by tensor, with a report that proves it."""
