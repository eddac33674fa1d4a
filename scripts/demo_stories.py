"""Generated stories for the demonstration: four themes with words of their own, and one hero.

Each story keeps one theme and one hero, whose pronoun follows the name; each theme has facts
that hold across sentences (rain asks for an umbrella, a score says who won, a dish needs what
was bought). So there is something to find in a model that has learned them: themes, names,
pronouns, numbers, and what follows from what.
"""

from collections.abc import Iterator

import numpy as np

from fluoroscope.core.seeding import stream

_HEROES = {
    "she": ("anna", "maria", "lucy", "emma", "rosa", "nora"),
    "he": ("tom", "peter", "oscar", "leo", "max", "henry"),
}
_OWN = {"she": "her", "he": "his"}
_WEATHER = {
    "rain": ("umbrella", "The street was wet."),
    "snow": ("scarf", "The street was white."),
    "sun": ("hat", "The street was warm."),
    "wind": ("coat", "The leaves flew down the street."),
}
_DISHES = {
    "soup": ("carrots", "onions", "hot"),
    "cake": ("sugar", "eggs", "sweet"),
    "salad": ("tomatoes", "cucumbers", "fresh"),
    "pasta": ("cheese", "tomatoes", "salty"),
}
_GAMES = ("chess", "cards", "football", "tennis", "darts")
_ANIMALS = {
    "dog": ("barked", "a bone"),
    "cat": ("purred", "some milk"),
    "horse": ("neighed", "an apple"),
    "bird": ("sang", "some seeds"),
}
_PLACES = ("garden", "kitchen", "park", "school", "market", "harbour")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_FEELINGS = ("happy", "tired", "proud", "curious", "calm")


def stories(count: int, seed: int) -> Iterator[str]:
    """`count` stories; story `i` depends on `seed` and `i` alone."""
    themes = (_weather, _cooking, _game, _animal)
    for index in range(count):
        random = stream(seed, "stories", index)
        pronoun = _pick(random, tuple(_HEROES))
        hero = _pick(random, _HEROES[pronoun]).capitalize()
        opening = f"On {_pick(random, _DAYS)} {hero} went to the {_pick(random, _PLACES)}."
        middle = themes[random.integers(len(themes))](random, hero, pronoun)
        closing = f"In the evening {pronoun} was {_pick(random, _FEELINGS)}."
        yield " ".join([opening, *middle, closing])


def _weather(random: np.random.Generator, hero: str, pronoun: str) -> list[str]:
    weather = _pick(random, tuple(_WEATHER))
    thing, street = _WEATHER[weather]
    degrees = random.integers(-5, 0) if weather == "snow" else random.integers(5, 30)
    forecast = [
        f"The radio said there would be {weather} and {degrees} degrees.",
        f"Soon the {weather} came, and it was {degrees} degrees outside.",
    ]
    return [
        _pick(random, forecast),
        f"So {hero} took {_OWN[pronoun]} {thing}.",
        street,
        f"{pronoun.capitalize()} was glad to have the {thing} because of the {weather}.",
    ]


def _cooking(random: np.random.Generator, hero: str, pronoun: str) -> list[str]:
    dish = _pick(random, tuple(_DISHES))
    first, second, taste = _DISHES[dish]
    guests = random.integers(2, 10)
    return [
        f"{pronoun.capitalize()} wanted to cook {dish} for {guests} guests.",
        f"{hero} bought {first} and {second}.",
        f"{pronoun.capitalize()} cut the {first}, then added the {second} and waited.",
        f"The {dish} was {taste}, and all {guests} guests ate it.",
    ]


def _game(random: np.random.Generator, hero: str, pronoun: str) -> list[str]:
    game = _pick(random, _GAMES)
    rival = _pick(random, _HEROES["he" if pronoun == "she" else "she"]).capitalize()
    low, high = sorted(random.choice(10, size=2, replace=False))
    hero_wins = bool(random.integers(2))
    winner, loser = (hero, rival) if hero_wins else (rival, hero)
    score = f"{high} to {low}" if hero_wins else f"{low} to {high}"
    return [
        f"There {pronoun} met {rival}, and they played {game}.",
        f"{hero} tried to win, but {rival} was good at {game} too.",
        f"For {hero} the score was {score}.",
        f"{winner} won the game and {loser} lost.",
    ]


def _animal(random: np.random.Generator, hero: str, pronoun: str) -> list[str]:
    animal = _pick(random, tuple(_ANIMALS))
    sound, food = _ANIMALS[animal]
    years = random.integers(2, 10)
    return [
        f"There was a {animal} that was {years} years old.",
        f"When the {animal} saw {hero}, it {sound}.",
        f"{hero} gave it {food}, and the {animal} {sound} again.",
        f"{pronoun.capitalize()} told {_OWN[pronoun]} friends about the {animal}.",
    ]


def _pick(random: np.random.Generator, choices: tuple[str, ...] | list[str]) -> str:
    return choices[random.integers(len(choices))]
