"""One module a study: table in, matplotlib figure out."""
