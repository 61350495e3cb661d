"""An attack of a user's: a member is a record whose posterior of the true class is above the mean of the shadows'."""

from miaprune import attack


@attack("gap")
class Gap:
    def fit(self, shadows):
        return {"mean": shadows.confidence.mean()}

    def score(self, fitted, victim):
        return victim.confidence - fitted["mean"]
