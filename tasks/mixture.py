"""The families that presets meta-train on, and those that choose between the results."""

# Of the preset `mixture`; the suite `in-distribution` scores on them.
MIXTURE = (
    "digits-mlp+reparametrised",
    "digits-mlp-deep+reparametrised",
    "digits-mlp-norm",
    "digits-autoencoder",
    "teacher_classification-mlp+loss-rescaled",
    "teacher_regression-mlp",
    "quadratic-noisy",
)

# Of the preset `star`.
BREADTH = (
    *MIXTURE,
    "digits-mlp-small_batch",
    "breast_cancer-linear",
    "digits-mlp-subset",
    "digits-mlp-noisy_labels",
    "teacher_classification-mlp-deep",
    "teacher_regression-mlp-deep",
    "rosenbrock-2d",
)

# What recipes are chosen by: in no preset's meta-training, and in no suite that results are reported on.
VALIDATION = (
    "digits-mlp-wide",
    "digits-mlp-activations",
    "teacher_classification-mlp-deepest",
    "teacher_regression-mlp-wide",
    "diabetes-linear",
    "griewank-10d",
    "beale-2d",
)
