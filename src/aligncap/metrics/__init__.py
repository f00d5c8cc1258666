"""Scores of captions against references, against the signal, and by a judge.

Every metric gives one row of numbers a clip (`Statistics`), from which the score of all clips, its
bootstrap interval and the difference between two systems are computed by the same functions.
Every score carries a signature: whatever it depends on.
"""
