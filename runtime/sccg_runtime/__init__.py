"""Converts MR and CT head series with a compressed generator, on the CPU, offline, without torch."""

__version__ = "0.1.0"
