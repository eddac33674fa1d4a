"""Language models of known families, read and written at any hook point."""
