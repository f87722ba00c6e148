"""Recommenders from autoencoders on sparse user-item data, with honest baselines."""

__version__ = "0.1.0"
