"""Isotherm's shared kernel: readings and packs, topics, settings, the series store, the command line."""

__version__ = "0.1.0"
