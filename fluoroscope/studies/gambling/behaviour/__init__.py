"""How games were played: pure functions of the tables of `logs`, each with its intervals."""
