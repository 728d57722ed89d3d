"""Evaluation: figures that agree with the published scorers. Chooses thresholds on val; on test it only looks."""
