"""Steps that several studies share. Each takes plain settings, and reads earlier steps' folders."""
