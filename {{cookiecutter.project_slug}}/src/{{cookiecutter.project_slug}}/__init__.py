"""The package of the study: your data, models and metrics, in plain PyTorch.

What is yours stands beside this file. `harness/` is the bench that it stands on: the same in every
study, and replaced as a whole by an update of the template.
"""
