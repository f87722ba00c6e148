"""From fitted models to numbers with intervals.

    evaluate       rank all items for held-out users, one value per user and metric
    significance   paired tests and Holm's correction
    baselines      baselines tuned on validation, fitted once per data set
    contenders     who takes part in a comparison, over one seed or several
    comparison     several contenders on the same users
    tables         tables for terminals, Markdown, LaTeX and HTML

Importing this package imports none of them.
"""
