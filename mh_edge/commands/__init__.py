"""One module per command: it parses, calls one step of the toolkit, and says how the result is shown."""
