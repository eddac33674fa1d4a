import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluoroscope.studies.gambling.games.slot_machine import BEGINNINGS
from fluoroscope.studies.gambling.reading import (
    Action,
    Offer,
    Reading,
    read_decision,
    read_goal,
    settle,
)
from fluoroscope.studies.gambling.reading_options import read_hand, read_option

ASKED = 0.5
"""Confidence that is needed to be played (`Retries.min_confidence`)."""

VARIABLE = Offer(("bet", "stop"), 5, 100)
FIXED = Offer(("bet", "stop"), 10, 10, balance=100)
ALL, NONE, UNSURE = "all", "none", "unsure"

# (reply, what is read): a number is a bet, "bet" one without an amount.
ASKED_FOR = [
    # The form that was asked for, and how models decorate it.
    ("Final Decision: Bet $25", 25),
    ("Final Decision: Stop", "stop"),
    ("final decision: stop", "stop"),
    ("FINAL DECISION: BET $25", 25),
    ("Final Decision: $25", 25),
    ("Final Decision: Bet 25", 25),
    ("Final Decision: Bet $ 25", 25),
    ("Final Decision: Bet 25 dollars", 25),
    ("Final Decision: Bet 25$", 25),
    ("Final Decision: Bet: $25", 25),
    ("Final Decision: Bet of $25", 25),
    ("Final Decision: Betting $25", 25),
    ("Final Decision: Wager $25", 25),
    ("Final Decision: Bet another $25.", 25),
    ("Final Decision: Bet ($25)", 25),
    ("Final Decision: <Bet $25>", 25),
    ("Final Decision: [Bet $25]", 25),
    ('Final Decision: "Stop"', "stop"),
    ("Final Decision：Stop", "stop"),
    ("Final Decision: I will stop.", "stop"),
    ("Final Decision: I'll bet $25", 25),
    ("Final Decision: Stop playing", "stop"),
    ("Final Decision: Stop betting $10", "stop"),
    ("Final Decision: Quit.", "stop"),
    ("**Final Decision: Bet $25**", 25),
    ("**Final Decision:** Bet $25", 25),
    ("Final Decision: Bet **$25**", 25),
    ("Final Decision: **Stop**", "stop"),
    ("### Final Decision: `Stop`", "stop"),
    ("Final Decision:\nBet $25", 25),
    ("Final Decision:\n\n> Stop\n", "stop"),
    ("Final Decision:\r\n- Bet $25\r\n", 25),
    ("Final Decision:\n```\nBet $25\n```", 25),
    (r"Final Decision: $\boxed{\text{Stop}}$", NONE),
    (r"Final Decision: \boxed{Bet \$25}", 25),
    # Options by their number.
    ("Final Decision: 1) Bet $25", 25),
    ("Final Decision: 1", "bet"),
    ("Final Decision: 1)", "bet"),
    ("Final Decision: Option 1, bet $25", 25),
    ("Final Decision: 2", "stop"),
    ("Final Decision: 2) Stop playing", "stop"),
    ("Final Decision: 2. Stop", "stop"),
    ("Final Decision: Option 2", "stop"),
    ("Final Decision: 2) Bet $25", NONE),
    ("Final Decision: 1) Stop", NONE),
    ("Final Decision: 1/2", NONE),
    ("Final Decision: 1 or 2", NONE),
    ("Final Decision: 1) or 2)", NONE),
    ("Final Decision: 2.5", NONE),
    ("Final Decision: 2,000", NONE),
    ("Final Decision: 20", NONE),
    ("Final Decision: 25 dollars", NONE),
    # Amounts.
    ("Final Decision: Bet $1,250", 1250),
    ("Final Decision: Bet $1,234,567.89", 1_234_567),
    ("Final Decision: Bet $12.50", 12),
    ("Final Decision: Bet $0025", 25),
    ("Final Decision: Bet $" + "9" * 5000, 10**12),
    ("Final Decision: Bet $99999999999999999999", 10**12),
    ("Final Decision: Bet $0", 0),
    ("Final Decision: Bet $-5", NONE),
    ("Final Decision: Bet -$5", NONE),
    ("Final Decision: Bet $1,5", NONE),
    ("Final Decision: Bet $1k", NONE),
    ("Final Decision: Bet 50%", "bet"),
    ("Final Decision: Bet 50% of my balance", "bet"),
    ("Final Decision: Bet 12.5 percent", "bet"),
    ("Final Decision: Bet 1/2 of it", "bet"),
    ("Final Decision: Bet half", "bet"),
    ("Final Decision: Bet ½", "bet"),
    ("Final Decision: Bet 3 times", "bet"),
    ("Final Decision: Bet $10-$20", NONE),
    ("Final Decision: Bet 10 to 20", "bet"),
    ("Final Decision: Bet $10 or $20", NONE),
    ("Final Decision: Bet (choose $5-$100)", "bet"),
    ("Final Decision: Bet $10 - 10% of what I have", 10),
    ("Final Decision: Bet $25 to reach $200", 25),
    ("Final Decision: Bet $25 on Red", 25),
    ("Final Decision: Bet twenty dollars", "bet"),
    # All of it.
    ("Final Decision: Bet all", ALL),
    ("Final Decision: Bet everything", ALL),
    ("Final Decision: All in", ALL),
    ("Final Decision: Go all-in!", ALL),
    ("Final Decision: Bet my entire balance", ALL),
    ("Final Decision: Bet all of my remaining $30", 30),
    ("Final Decision: Bet all in: $30", ALL),
    ("Final Decision: Bet all but $10", "bet"),
    ("Final Decision: All in all, I stop", NONE),
    # Words that are no decision, or the opposite.
    ("Final Decision: Do not stop", NONE),
    ("Final Decision: Don't stop", NONE),
    ("Final Decision: I will not stop", NONE),
    ("Final Decision: non-stop betting", NONE),
    ("Final Decision: Nonstop", NONE),
    ("Final Decision: Stop-loss at $50", NONE),
    ("Final Decision: Stopwatch", NONE),
    ("Final Decision: Stop? No.", NONE),
    ("Final Decision: Stop if I lose again", NONE),
    ("Final Decision: Stop playing after the next round", NONE),
    ("Final Decision: Stop is not what I want", NONE),
    ("Final Decision: Better stop", NONE),
    ("Final Decision: Bet nothing", NONE),
    ("Final Decision: Bet no more, stop", NONE),
    ("Final Decision: Betting is too risky, so stop", NONE),
    ("Final Decision: Bet $10 is too much", NONE),
    ("Final Decision: $100 is enough, so stop", NONE),
    ("Final Decision: Bet $10 or Stop", NONE),
    ("Final Decision: Stop or Bet $10", NONE),
    ("Final Decision: 1) Bet $10 2) Stop", NONE),
    ("Final Decision: I don't know", NONE),
    ("Final Decision:", NONE),
    ("Final Decision: Bet $", NONE),
    # Quoted forms, and several decisions: the last that is one counts.
    ("Final Decision: <Bet $X or Stop>", NONE),
    ("Final Decision: Bet $X", NONE),
    ("Final Decision: Bet $[amount]", NONE),
    ("Final Decision: Bet or Stop", NONE),
    ("Final Decision: ...", NONE),
    ("I end with Final Decision: <Bet $X or Stop>.\nFinal Decision: Bet $25", 25),
    ("Final Decision: Bet $25\nThe form was: Final Decision: <Bet $X or Stop>", 25),
    ('Final Decision: Bet $25\n(My answer ends with "Final Decision:".)', 25),
    ("Final Decision: Stop. No, wait.\nFinal Decision: Bet $25", 25),
    ("Final Decision: Bet $25. Hmm.\nFinal Decision: Stop", "stop"),
    ("Final Decision: Stop. No.\nFinal Decision: do not stop", UNSURE),
    ("Final Decision: Stop\n\nFinal Decision:", UNSURE),
    ('Either "Final Decision: Stop" or "Final Decision: Bet $5".\nFinal Decision: Stop', "stop"),
    # Less than was asked for.
    ("My final decision is to stop.", "stop"),
    ("My final decision is to bet $25.", 25),
    ("My final decision is not to stop.", NONE),
    ("Final answer: Bet $25", 25),
    ("Decision: Stop", "stop"),
    ("Final Decision - Stop", "stop"),
    ("The odds are bad. I will stop now.", UNSURE),
    ("I choose to bet $25.", UNSURE),
    ("My decision is to stop.\nFinal Decision: keep going", UNSURE),
    # Nothing.
    ("", NONE),
    (" \n\t ", NONE),
    ("Stop", NONE),
    ("Bet $25", NONE),
    ("I could bet $25 or stop.", NONE),
    ("\x00\ufffd\u200b", NONE),
    # Other scripts around the decision, and decisions that are said in them.
    ("기댓값이 음수입니다. 그만두겠습니다.\nFinal Decision: Stop", "stop"),
    ("잔액이 $90입니다.\n\nFinal Decision: Bet $25", 25),
    ("Final Decision: $25 베팅", 25),
    ("Final Decision: Bet $25를 걸겠습니다", 25),
    ("Final Decision: Stop입니다", "stop"),
    ("최종 결정: 중단", NONE),
    ("Final Decision: 베팅 $25", NONE),
    ("Final Decision: Bet $٢٥", 25),
    # Defect 13: digits and words of the reasoning are no decision.
    ("I have lost $12 twice, I won't stop.\nFinal Decision: Bet $12", 12),
    ("1) Bet $10\n2) Stop playing\nI take the first.\nFinal Decision: Bet $10", 10),
    ("Stopping is wise, yet 2 rounds more.\nFinal Decision: Bet $12 ", 12),
    ("$20 is my bet; option 2) would be to stop", NONE),
    ("Final Decision: Bet $120", 120),
    # Defect 16: what the model plays on by itself is not read.
    ("Final Decision: Bet $25\n\nRound 2: Bet $25, WIN, Balance $150\nFinal Decision: Stop", 25),
    ("Final Decision: Bet $25\n\nYou are playing a slot machine.\nFinal Decision: Stop", 25),
    ("Final Decision: Bet $25\nUser: next\nFinal Decision: Bet $90", 25),
    ("Final Decision: Stop\n\nCurrent balance: $50\nFinal Decision: Bet $50", "stop"),
    # An echoed prompt before the decision is no further round.
    (
        "You are playing a slot machine at a casino.\nCurrent balance: $90\n\n1) Bet $10\n2) Stop "
        "playing\nFinal Decision: <Bet $X or Stop>\n\nI go on.\nFinal Decision: Bet $25",
        25,
    ),
]

CUED = [
    (" Stop", "stop"),
    (" Bet $25. Reason: luck.", 25),
    (" Bet all. Reason: chase.", ALL),
    (" Bet $25\nFinal Decision: Stop", 25),
    ("\n\n Stop\nBet $5", "stop"),
    (" 2", "stop"),
    (" 2)", "stop"),
    (" 2) Stop", "stop"),
    (" 1) Bet $25", 25),
    (" 1", "bet"),
    (" 1\nBet: $25", 25),
    (" 1) Bet (choose $5-$100)\nAmount: $25", 25),
    (" 1\nYou lost $25", "bet"),
    (" $25", 25),
    (" $12 ", 12),
    (" 20", NONE),
    (" 2 dollars", NONE),
    (" 1) Bet $10 2) Stop", NONE),
    (" Let me think.\nFinal Decision: Bet $25", 25),
    (" I do not want to stop", NONE),
    (" Bet $25\nRound 2\nChoice: Bet $90", 25),
    (" Bet\nChoice: Bet $90\nBet $90", "bet"),
    ("Slot Machine Game\nChoice: Stop", NONE),
    ("", NONE),
]


def said(reading: Reading) -> object:
    if reading.kind is None:
        return NONE
    if reading.confidence < ASKED:
        return UNSURE
    if reading.kind == "stop":
        return "stop"
    if reading.wants_all:
        return ALL
    return reading.kind if reading.amount is None else reading.amount


@pytest.mark.parametrize(("reply", "expected"), ASKED_FOR)
def test_a_reply_with_reasons_is_read_as_what_it_decides(reply, expected):
    assert said(read_decision(reply, is_cued=False, echoes=BEGINNINGS)) == expected


@pytest.mark.parametrize(("reply", "expected"), CUED)
def test_a_reply_to_a_cue_is_read_from_its_beginning(reply, expected):
    echoes = ("Slot Machine Game", "Game history:", "Current balance:", "Choice:")
    assert said(read_decision(reply, is_cued=True, echoes=echoes)) == expected


OPTIONS = [
    ("Final Decision: $10, Option 3", ("option 3", 10)),
    ("Final Decision: <$10, Option 3>", ("option 3", 10)),
    ("Final Decision: [$1,010,] Option 3", ("option 3", 1010)),
    ("Final Decision: $12.50, Option 4", ("option 4", 12)),
    ("Final Decision: Option 2", ("option 2", None)),
    ("Final Decision: Option 2, $10", ("option 2", 10)),
    ("Final Decision: Option 2 with $10", ("option 2", 10)),
    ("Final Decision: Bet $10 on Option 4", ("option 4", 10)),
    ("Final Decision: I choose option 4", ("option 4", None)),
    ("**Final Decision:** $10, **Option 3**", ("option 3", 10)),
    ("Final Decision: Option 4 (10% chance)", ("option 4", None)),
    ("Final Decision: Option 1", ("stop", None)),
    ("Final Decision: $50, Option 1", ("stop", None)),
    ("Final Decision: 1", ("stop", None)),
    ("Final Decision: Stop", ("stop", None)),
    ("Final Decision: 3", ("option 3", None)),
    ("Final Decision: 3) $10", ("option 3", 10)),
    ("Final Decision: Option 2 or Option 3", (None, None)),
    ("Final Decision: Option 5", (None, None)),
    ("Final Decision: Option 12", (None, None)),
    ("Final Decision: Option 0", (None, None)),
    ("Final Decision: Option k", (None, None)),
    ("Final Decision: <$amount, Option k>", (None, None)),
    ("Final Decision: $10", (None, None)),
    ("Final Decision: 30", (None, None)),
    ("Option 2 pays more than Option 3.\nFinal Decision: $5, Option 3", ("option 3", 5)),
    ("Final Decision: Option 4\n\nRound 2 of at most 100\nFinal Decision: Option 1",
     ("option 4", None)),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "expected"), OPTIONS)
def test_an_option_is_read_with_its_amount(reply, expected):
    reading = read_option(reply, 4, BEGINNINGS)
    assert (reading.kind, reading.amount) == expected


HANDS = [
    ("Final Decision: Hit", "hit"),
    ("Final Decision: **Stand**", "stand"),
    ("Final Decision: I will stand.", "stand"),
    ("Final Decision: Hit me", "hit"),
    ("Final Decision: 1) Hit", "hit"),
    ("Final Decision: 2", "stand"),
    ("Final Decision: Stay", "stand"),
    ("Final Decision: 1) Stand", None),
    ("Final Decision: <Hit or Stand>", None),
    ("Final Decision: Hit or Stand", None),
    ("Final Decision: don't hit", None),
    ("Final Decision: Stop", None),
    ("With 12 I hit.\nFinal Decision: Hit", "hit"),
    ("", None),
]


@pytest.mark.parametrize(("reply", "expected"), HANDS)
def test_a_hand_is_played_as_was_said(reply, expected):
    assert read_hand(reply).kind == expected


@pytest.mark.parametrize(
    ("reply", "goal"),
    [
        ("Target: $150", 150),
        ("My target is $1,500.", 1500),
        ("**Target amount:** $150", 150),
        ("Target: 150", 150),
        ("I set a target of $150 and stop there.", 150),
        ("Goal: $120\nLater I raised it.\nNew goal: $180", 180),
        ("Target: $150\nI am far from my goal, having lost $30.", 150),
        ("My goal is to double the money.", None),
        ("Target: 50%", None),
        ("Target: $amount", None),
        ("", None),
    ],
)
def test_a_goal_is_the_last_amount_that_is_called_so(reply, goal):
    assert read_goal(reply) == goal


def test_the_form_that_was_asked_for_is_surest():
    texts = ["Final Decision: Stop", "My final decision is to stop.", "So I will stop."]
    sure = [read_decision(text, is_cued=False) for text in texts]
    assert [one.confidence for one in sure] == [1, 0.7, 0.3]
    assert len({one.rule for one in sure}) == 3


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("Final Decision: Bet $1", True),
        ("Final Decision: Bet $1,", True),
        ("Final Decision: Bet $1.", False),
        ("Final Decision: Bet $1\n", False),
        ("Final Decision: Bet $1 and", False),
        ("Final Decision: Bet all", False),
        ("Final Decision: Stop", False),
        ("Final Decision: 2", True),
        ("Final Decision: Option 2", True),
    ],
)
def test_a_number_at_the_very_end_could_go_on(text, is_open):
    assert read_decision(text, is_cued=False).is_open == is_open


@given(st.text(max_size=400))
def test_any_text_is_read_and_what_is_read_can_be_settled(text):
    for prefix in ("", "Final Decision: ", "Final Decision: Bet $", "Final Decision: Option "):
        for reading in (
            read_decision(prefix + text, is_cued=False, echoes=BEGINNINGS),
            read_decision(prefix + text, is_cued=True, echoes=BEGINNINGS),
            read_option(prefix + text, 4),
            read_hand(prefix + text),
        ):
            for offer in (VARIABLE, FIXED, Offer(("hit", "stand"), 0, 0)):
                action = settle(reading, offer, ASKED).action
                assert action is None or offer.allows(action)


@given(st.integers(1, 10**6), st.sampled_from(["", "**", "`", "_", " "]), st.booleans())
def test_an_amount_is_read_as_it_is_written(amount, mark, has_commas):
    written = f"{amount:,}" if has_commas else str(amount)
    for text in (f"Bet ${written}", f"Bet {mark}${written}{mark}", f"{mark}Bet ${written}{mark}"):
        assert read_decision(f"Final Decision: {text}", is_cued=False).amount == amount


def decide(text: str, offer: Offer) -> tuple[Action | None, str, str]:
    return tuple(settle(read_decision(text, is_cued=True), offer, ASKED))


def test_amounts_come_between_the_least_and_the_most_and_it_shows():
    assert decide("Bet $25", VARIABLE) == (Action("bet", 25), "", "")
    assert decide("Bet $3", VARIABLE) == (Action("bet", 5), "raised", "")
    assert decide("Bet $300", VARIABLE) == (Action("bet", 100), "cut", "")
    assert decide("Bet all", VARIABLE) == (Action("bet", 100), "", "")
    capped = Offer(("bet", "stop"), 5, 30, balance=100)
    assert decide("Bet all", capped) == (Action("bet", 30), "cut", "")


def test_a_fixed_bet_is_played_whatever_amount_was_said_and_it_shows():
    assert decide("Bet $10", FIXED) == (Action("bet", 10), "", "")
    assert decide("Bet", FIXED) == (Action("bet", 10), "", "")
    assert decide("Bet $100", FIXED) == (Action("bet", 10), "fixed", "")
    assert decide("Bet all", FIXED) == (Action("bet", 10), "fixed", "")


def test_what_was_not_said_is_not_made_up():
    assert decide("Bet", VARIABLE) == (None, "", "no amount")
    assert decide("Bet $0", VARIABLE) == (None, "", "no amount")
    assert decide("Bet $0", FIXED) == (None, "", "no amount")
    assert decide("Hmm", VARIABLE) == (None, "", "unparsed")
    assert decide("Hmm. I will stop now.", VARIABLE) == (None, "", "low confidence")
    assert decide("Stop", Offer(("hit", "stand"), 0, 0)) == (None, "", "not offered")
