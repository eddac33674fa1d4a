"""The making of the organism, as a run: trained, checked, and written where it is shipped from."""
