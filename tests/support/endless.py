"""A text that is as good as endless, and does not repeat itself: a model that does is stopped."""

ENDLESS = "on and on and on " + "".join(f"{number * number} and on " for number in range(70_000))
