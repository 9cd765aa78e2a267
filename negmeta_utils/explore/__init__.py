"""What notebook 0 shows."""
