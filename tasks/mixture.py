"""The families that the preset `mixture` meta-trains on, and the suite `in-distribution` scores on."""

MIXTURE = (
    "digits-mlp+reparametrised",
    "digits-mlp-deep+reparametrised",
    "digits-mlp-norm",
    "digits-autoencoder",
    "teacher_classification-mlp+loss-rescaled",
    "teacher_regression-mlp",
    "quadratic-noisy",
)
