"""One module per resource: routes, their parameters, and which service answers them. Nothing is decided here."""
