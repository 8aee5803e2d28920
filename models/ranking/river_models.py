"""First challengers, models of River; a setting names ``models.ranking.river_models:logistic``."""

from __future__ import annotations

from typing import Any

from river import forest, linear_model, naive_bayes, optim, preprocessing, reco, tree


def logistic() -> Any:  # noqa: ANN401  River is not typed for mypy
    """Logistic regression on scaled features."""
    model = linear_model.LogisticRegression(optim.AdaGrad(0.1))
    return preprocessing.StandardScaler() | model


def linear() -> Any:  # noqa: ANN401
    """Linear regression on scaled features."""
    model = linear_model.LinearRegression(optim.AdaGrad(0.02))
    return preprocessing.StandardScaler() | model


def bayes() -> Any:  # noqa: ANN401
    """Naive Bayes with normal distributions."""
    return naive_bayes.GaussianNB()


def hoeffding() -> Any:  # noqa: ANN401
    """One decision tree, which grows by Hoeffding's bound."""
    return tree.HoeffdingTreeClassifier()


def trees() -> Any:  # noqa: ANN401
    """Five decision trees, which drift detectors replace."""
    return forest.ARFClassifier(n_models=5, seed=1)


def factors() -> Any:  # noqa: ANN401
    """Biased matrix factorisation of the last item and the candidate."""
    return reco.BiasedMF(n_factors=10, seed=1)
