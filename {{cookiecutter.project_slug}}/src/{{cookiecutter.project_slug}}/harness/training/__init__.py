"""The loop, prepared data and batches, checkpoints, determinism: plain PyTorch, without Hydra."""
