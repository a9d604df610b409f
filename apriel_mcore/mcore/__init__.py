"""The trainer: the one package that touches Megatron-Core."""
