"""Losses, one training step, the Lightning module, metrics, checkpoints."""
