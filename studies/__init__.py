"""Questions answered with numbers."""
