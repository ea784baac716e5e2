"""Acquisition functions, candidate regions, selection under a budget, the oracle."""
