"""Rewards, advantages and policy losses: pure functions."""
