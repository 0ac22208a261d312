"""What the program `python -m benchmarks.gpu` measures, a module for each kind of work."""
