"""Our artifacts against what a user would pick instead: speed (`python -m benchmarks.speed`), scale and export cost."""
