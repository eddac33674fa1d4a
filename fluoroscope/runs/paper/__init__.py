"""A finished run as files for a paper: tables, figures, numbers as macros, and where from."""
