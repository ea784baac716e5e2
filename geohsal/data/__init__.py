"""Torch datasets over the tile index, augmentations, samplers, the Lightning data module."""
