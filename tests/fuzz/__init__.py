"""Fuzzing of every parser that is ours: `make fuzz`, or `python -m tests.fuzz`."""
