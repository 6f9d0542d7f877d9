"""The model card: what the model is for, how good it is and where it ends, in Markdown.

Sections follow Mitchell et al., "Model Cards for Model Reporting", 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.model.features import Feature
from app.model.network import DROPOUT, STANDARD_SCORE_LIMIT
from training.data import CLASSES, FEATURE_NAMES, LABEL, Data
from training.evaluate import METRIC_NAMES, MODELS, NETWORK, Evaluation
from training.fit import AGE_RANGE, HIDDEN_DIM, Recipe

ROC_PICTURE = "roc.png"
RELIABILITY_PICTURE = "reliability.png"

_HEADINGS = ("ROC AUC", "average precision", "Brier score", "expected calibration error")
_AGES = f"{AGE_RANGE[0]:g} to {AGE_RANGE[1]:g}"


def write_card(
    data: Data,
    features: Sequence[Feature],
    recipe: Recipe,
    evaluation: Evaluation,
    *,
    title: str,
    command: str,
) -> str:
    """Write the card as Markdown; ``command`` is the line that makes the bundle again."""
    sections = (
        f"# {title}\n",
        _purpose(),
        _inputs(features),
        _data(data),
        _figures(data, evaluation),
        _training(recipe, command),
        _LIMITS,
    )
    return "\n".join(sections)


def _purpose() -> str:
    layers = " - ".join(map(str, (len(FEATURE_NAMES), HIDDEN_DIM, HIDDEN_DIM, len(CLASSES))))
    return f"""\
Tells how likely a customer of a retailer is to accept the offer of a marketing campaign, from six
numbers about the customer. Classes: {" and ".join(f"`{name}`" for name in CLASSES)}.

The network puts medians where a value is null, clips age to {_AGES}, takes the logarithm of
income (`log1p`), standardises, holds what results within ±{STANDARD_SCORE_LIMIT:g}, and classifies
with a perceptron of {layers} units (ReLU, dropout {DROPOUT}). Preprocessing is part of the
network: give it raw values.

## Intended use

- To rank the customers of a campaign and to choose how many of them to address; the probabilities
  are meant to be taken at their word within the limits below.
- As an example of a bundle, to try the server with.

Not intended: decisions about one person that matter to that person (credit, insurance, employment,
prices), other businesses or countries, and any year's campaign without a check on its own data.
"""


def _inputs(features: Sequence[Feature]) -> str:
    rows = [
        [
            f"`{feature.name}`",
            feature.unit,
            f"{feature.minimum:,.10g} to {feature.maximum:,.10g}",
            "yes" if feature.nullable else "no",
            feature.description,
        ]
        for feature in features
    ]
    return f"""\
## Inputs

{_table(["feature", "unit", "seen in training", "may be null", "meaning"], rows)}

A value outside the range seen is answered, but nothing in the data supports the answer. The ends
of a range may rest on a single row, those of income and of the mean amount above all.
"""


def _data(data: Data) -> str:
    return f"""\
## Data

A part of the public data set "Marketing Campaign", also known as "Customer Personality Analysis"
(published with SAS material by Olivia Parr-Rud, on Kaggle under CC0), collected until 2014: one row
a customer, reduced to six features. The label, `{LABEL}`, says whether the customer accepted the
offer of the retailer's last campaign.

- Rows: {len(data):,}; responses: {data.labels.sum():,} ({data.labels.mean():.1%}).
- Rows that repeat the six features of another: {len(data) - len(np.unique(data.groups)):,}.
- Missing values: {_blanks(data)}.
- Ages outside {_AGES}: {_implausible_ages(data)}. They are clipped, and not in the range above.
"""


def _blanks(data: Data) -> str:
    counts = np.isnan(data.features).sum(axis=0).tolist()
    blanks = [f"`{name}` {k:,}" for name, k in zip(FEATURE_NAMES, counts, strict=True) if k]
    return ", ".join(blanks) or "none"


def _implausible_ages(data: Data) -> int:
    ages = data.features[:, FEATURE_NAMES.index("age")]
    return int(((ages < AGE_RANGE[0]) | (ages > AGE_RANGE[1])).sum())


def _figures(data: Data, evaluation: Evaluation) -> str:
    folds = len(evaluation.folds[NETWORK])
    share = data.labels.mean()
    summary = [
        [
            model,
            *(
                f"{evaluation.mean(model, metric):.3f} ± {evaluation.spread(model, metric):.3f}"
                for metric in METRIC_NAMES
            ),
        ]
        for model in MODELS
    ]
    by_fold = [
        [str(fold + 1), model]
        + [f"{getattr(evaluation.folds[model][fold], metric):.3f}" for metric in METRIC_NAMES]
        for fold in range(folds)
        for model in MODELS
    ]
    return f"""\
## Figures

Cross-validation in {folds} stratified folds, identical rows kept in one fold, preprocessing fitted
on the training part of each fold. Mean ± standard deviation over the folds:

{_table(["model", *_HEADINGS], summary)}

ROC AUC and average precision are better when higher, the other two when lower. The expected
calibration error has 10 bins of equal width; on folds so small, a part of it is noise even for
perfect probabilities. Always answering the mean, {share:.3f}, has ROC AUC 0.5 and a Brier score of
{share * (1 - share):.3f}. The baselines had the same folds and the same preprocessing; its limit of
±{STANDARD_SCORE_LIMIT:g} keeps single mistyped values from bending logistic regression. Where
gradient boosting is ahead, it is the better choice on accuracy alone.

Fold by fold:

{_table(["fold", "model", *_HEADINGS], by_fold)}

![ROC curves]({ROC_PICTURE})
![Reliability]({RELIABILITY_PICTURE})

Both pictures show, for every row, the model of the fold that was not trained on that row; each
point of the second is a tenth of the rows, with a 95 % interval for the network.
"""


def _training(recipe: Recipe, command: str) -> str:
    return f"""\
## Training

- {recipe.epochs} epochs of AdamW with weight decay {recipe.weight_decay:g}.
- Batches of {recipe.batch_size} rows.
- The learning rate rises to {recipe.learning_rate:g} and falls to zero by half a cosine.
- Gaussian noise of {recipe.noise:g} standard deviations is added to the standardised inputs.
- The schedule is fixed: no fold decides when to stop.

The weights of this bundle come from a last run on all rows with the same settings; the figures
above are of the networks of the folds, which saw fewer rows. To make it again, with the versions of
the libraries that this repository pins:

    {command}

The same data and seed give the same weights bit for bit on one machine.
"""


_LIMITS = """\
## Limits

- The data is small and old: one retailer, one campaign, collected until 2014. The figures say how
  the model does on other customers of that campaign, not on those of another.
- The settings were chosen by cross-validation on the same rows, so the figures flatter a little.
- Few responders mean wide uncertainty: the spread over folds is part of the result.
- It predicts who responds, not whom the offer persuades: responders may have bought anyway.
- Age is an input, and a protected attribute in many places: check whether the law lets you address
  people by it, and compare groups of age before use. Income can stand in for other such attributes.
- Blanks were few: probabilities for customers with null values rest on little.
"""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
