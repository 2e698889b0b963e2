"""The tests of a study's harness, run on a bake: see tests/test_harness.py."""
