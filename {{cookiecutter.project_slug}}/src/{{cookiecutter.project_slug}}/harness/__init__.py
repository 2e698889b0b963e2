"""Everything that is the same in every study, byte for byte; nobody edits it.

It imports nothing of the study: what is yours is named by a `_target_` in conf/.

configuration/  composes, checks and builds: the only part that knows Hydra
training/       the loop, prepared data, checkpoints, determinism
runs/           what a run is known by, its folder, its record, and what differs between two
inference/      a finished run: load it, predict, evaluate, export
checks/         what every model must pass
reporting/      statistics over seeds, tables, figures, pages
debugging/      what leaves no run behind: debug=overfit, brief, profile; task=find_lr
tracking/       trackers, if they are asked for
commands/       the console command `study`, one file a command
"""
