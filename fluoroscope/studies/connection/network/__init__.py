"""Networks that read a text, think, and write an answer; plain library code, free of runs."""
