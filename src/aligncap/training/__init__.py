"""Training (§4.2): `loop.fit`, the one training loop, its settings, checkpoints and devices."""
