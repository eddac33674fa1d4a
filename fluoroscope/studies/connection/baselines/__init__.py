"""What slot networks are compared with, and at what size that is fair; free of runs."""
