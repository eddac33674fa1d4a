"""What a slot hears of the others in one step: one file a form."""
