"""Games in the forms of the seed's files, written by hand."""

import json

from fluoroscope.studies.gambling.seed_files.games import import_games


def rounds(*bets, start=100, first=1):
    """`(bet, won)` -> the history of a game by the rules."""
    found, balance = [], start
    for number, (bet, won) in enumerate(bets, start=first):
        balance += 2 * bet if won else -bet
        result = "W" if won else "L"
        found.append(
            {"round": number, "bet": bet, "result": result, "balance": balance, "win": won}
        )
    return found


def bare(*bets, **changes):
    """Without prompts, as of Experiment 0."""
    history = rounds(*bets)
    balance = history[-1]["balance"] if history else 100
    return {
        "bet_type": "variable",
        "prompt_combo": "GM",
        "repetition": 0,
        "outcome": "bankruptcy" if balance <= 0 else "voluntary_stop",
        "final_balance": balance,
        "total_rounds": len(history),
        "history": history,
        **changes,
    }


def told(*bets, stop=True, **changes):
    """With prompts and replies, as of the 6,400 games."""
    history = rounds(*bets)
    balances = [100, *(one["balance"] for one in history)]
    decisions = [
        {
            "round": i,
            "balance_before": balance,
            "prompt": f"Slot Machine Game\n\nCurrent balance: ${balance}\n\nChoice: ",
            "response": f"1) Bet ${bet}" if bet else "2) Stop\n",
            "decision": "continue" if bet else "stop",
            "bet_amount": bet,
            "layer_25_features": [0.0, 1.5, 0.0],
        }
        for i, (balance, bet) in enumerate(
            zip(balances, [*(bet for bet, _ in bets), *[None] * stop], strict=False)
        )
    ]
    balance = balances[-1]
    return {
        "condition_id": 1,
        "repetition": 1,
        "bet_type": "variable",
        "prompt_combo": "BASE",
        "total_rounds": len(history),
        "final_balance": balance,
        "is_bankrupt": balance <= 0,
        "voluntary_stop": balance > 0 and len(history) < 100,
        "total_bet": sum(bet for bet, _ in bets),
        "round_features": decisions,
        "game_history": history,
        **changes,
    }


def write(path, *games, **header):
    path.write_text(json.dumps({"timestamp": "now", **header, "results": list(games)}))
    return path


def imported(folder, *games, **header):
    return import_games(write(folder / "games.json", *games, **header))
