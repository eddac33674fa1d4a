"""Games that a model can play, one file each; a new one is a file and a line here."""

from fluoroscope.core.registry import Registry
from fluoroscope.studies.gambling.games.base import Game

GAMES: Registry[type[Game]] = Registry(
    "game",
    {
        "slot_machine": "fluoroscope.studies.gambling.games.slot_machine:SlotMachine",
        "investment": "fluoroscope.studies.gambling.games.investment:Investment",
        "coin_flip": "fluoroscope.studies.gambling.games.coin_flip:CoinFlip",
        "mystery_wheel": "fluoroscope.studies.gambling.games.mystery_wheel:MysteryWheel",
        "blackjack": "fluoroscope.studies.gambling.games.blackjack:Blackjack",
    },
)
