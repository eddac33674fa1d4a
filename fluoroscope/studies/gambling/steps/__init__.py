"""The steps of the gambling study, in the order of work; what they compute is library code."""
