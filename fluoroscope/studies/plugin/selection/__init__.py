"""Which layer to plug in: scores of layers, and how well they foretell trainings."""
