"""The figures of the anatomy study: each one function that takes arrays and returns a `Chart`."""
