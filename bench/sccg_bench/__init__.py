"""Measures latency, memory, image quality and drift of models it only knows as callables. No torch here."""
