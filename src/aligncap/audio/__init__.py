"""Sound files in, mono 16 kHz speech out; its level, and where somebody speaks."""
