"""What the words on the page mean, for a reader who has not used clmed."""

WORDS = (
    ("gain", "the mean change of accuracy on the domain's benchmarks since the base model, in percentage points"),
    ("retention", "the same on the general benchmarks: below zero, general ability was lost"),
    ("forgetting", "how far the last score lies below the best earlier one, the base model among them"),
    ("base, now", "the model before training, and at the last point at which every benchmark was measured"),
    (
        "[low, high]",
        "a 95 % interval: what other questions of the same kind, and other seeds where there are some, may have given",
    ),
    (
        "retained",
        "said only where a loss above the margin is excluded; forgotten: the loss is more than chance; else undecided",
    ),
    (
        "better, worse",
        "than the reference, tested on the same questions and corrected for the number of comparisons (Holm); without "
        "either word the difference may be chance",
    ),
    ("nats/token", "the loss on held-out text, where less is better"),
    ("domain tokens, all tokens", "trained of the domain's own data, and with replay and everything else"),
    ("front", "no other run has more of both gain and retention"),
)
