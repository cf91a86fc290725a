"""Found here by Django."""
