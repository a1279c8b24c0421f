"""PTX as text to Python that executes it, one generator a kernel."""
