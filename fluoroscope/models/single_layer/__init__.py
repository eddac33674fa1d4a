"""One layer of a large language model, read without the rest of it and run on its own."""
