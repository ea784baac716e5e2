"""Fused operators, one folder each: a float64 reference, the torch path, one custom op."""
