"""Evaluation of gait features: extraction, scoring, metrics, baselines and reports."""
