"""Train and judge SAEs of every layer; the other studies start from what it makes."""
