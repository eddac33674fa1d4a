"""Experiment 0 of the plan: 3,200 games of Gemma-2-9b-it, 50 of each of the 64 conditions.

    python scripts/gemma_3200_no_deepspeed.py --gpu_id 1

Writes gemma_3200_games.json with every prompt and reply; the other scripts take it with `--log`.
Empty replies are asked for again (1,000 times, where the plan said for ever), any other is read or
counted as unread: how often is a table of the report.
"""

from seed_command import GEMMA, guarded, play_games


def main() -> None:
    play_games(str(__doc__), GEMMA, "gemma")


if __name__ == "__main__":
    guarded(main)
