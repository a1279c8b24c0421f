"""One module a study, with the name of the study: ``PLOTS`` says how its tables are drawn."""
