"""From models to numbers with intervals.

    fitting        fit a model, measure it on validation, make a bundle of it: as train, tune and baselines do
    evaluate       rank all items for held-out users, one value per user and metric; means with intervals
    significance   paired tests and Holm's correction
    baselines      baselines tuned on validation, fitted once per data set, and which of them is the strongest
    same_data      whether runs are of the data they are measured on, and have not seen its users
    contenders     who takes part in a comparison, over one seed or several
    comparison     contenders on the same users, tested against a baseline
    slices       users by length of history, targets by popularity
    pages          what a comparison shows to people: metrics, seeds, differences and cost
    tables         tables for terminals, Markdown, LaTeX and HTML
    documents      a comparison as a whole page of HTML, and as rows of CSV

Importing this package imports none of them.
"""
