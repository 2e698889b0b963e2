"""The bench that every study stands on, byte for byte the same in each; nobody edits it.

It imports nothing of the study: whatever is yours is named by a `_target_` in conf/.

configuration/  composes, checks and builds: the only part that knows Hydra
training/       the loop, prepared data, checkpoints, determinism
runs/           what a run is known by, its folder, its record, and what differs between two
checks/         what every model must pass
reporting/      statistics over seeds, and tables of them
commands/       the console command `study`, one file a command
"""
