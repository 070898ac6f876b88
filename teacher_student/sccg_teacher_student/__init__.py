"""Generators, losses, data, teacher training and distillation. torch lives here and nowhere below."""
