"""The one training loop (§4.2): settings, schedule, checkpoints that resume exactly, devices.

Everything that is trained hands `loop.fit` a model, a step and batches; only the step differs.
"""
