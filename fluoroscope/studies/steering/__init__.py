"""Steering by features that go along with the outcome, beside what else could be done."""
