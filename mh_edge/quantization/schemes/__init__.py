"""One scheme per file: schemes/<format>/<name>.py, found because it lies there."""
