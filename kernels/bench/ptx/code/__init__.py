"""Translates PTX text to Python that executes it, one generator for each kernel."""
