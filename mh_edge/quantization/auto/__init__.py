"""`--scheme auto`: the layers of a file, what each costs alone, and the choice among what was tried."""
