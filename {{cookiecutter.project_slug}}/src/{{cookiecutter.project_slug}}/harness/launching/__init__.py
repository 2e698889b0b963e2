"""Runs on other machines: what is asked of a cluster, and how its jobs are followed."""
