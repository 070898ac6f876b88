"""Builds engines from trained networks: one module per target, quantisers, drift gate, bundle writer."""
