"""How a plan is made from what was collected: one file a family, one line in `METHODS`."""
