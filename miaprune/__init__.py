"""Membership inference attacks on pruned neural networks (Yuan and Zhang, USENIX Security 2022)."""

__version__ = "0.1.0"
