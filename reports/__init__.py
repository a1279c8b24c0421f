"""Pages that show the numbers."""
