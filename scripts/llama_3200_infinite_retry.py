"""Experiment 0 of the plan: 3,200 games of Llama-3.1-8B, 50 of each of the 64 conditions.

    python scripts/llama_3200_infinite_retry.py --gpu_id 0

Writes llama_3200_games.json with every prompt and reply; the other scripts take it with `--log`.
Empty replies are asked for again (1,000 times, where the plan said for ever), any other is read or
counted as unread: how often is a table of the report.
"""

from seed_command import LLAMA, guarded, play_games


def main() -> None:
    play_games(str(__doc__), LLAMA, "llama")


if __name__ == "__main__":
    guarded(main)
