"""Pictures and pages: what runs did, drawn and written for people who were not there.

    canvas         colours, line styles and markers, figures without pyplot, writing them
    curves         training curves
    accuracy       accuracy against the number of items, by length of history, by popularity
    popularity     popularity of recommendations, and how much of the catalogue they cover
    latent         maps of users and items by their embeddings
    groups         groups of about equal size, and their means with intervals
    logs           what training wrote of each epoch; whether runs are on the same data
    labels         labels of users from a file
    measuring      the ranked items of several runs for the same users
    pictures       the pictures by name, from what was measured
    markup         pieces of a page: escaped texts, tables, pictures in the page's colours
    words          data, protocol and metrics in plain words
    examples       single users: recommendations and reasons; for whom a run does worst
    again          commands, versions and seeds that make runs again
    page           a report as one page
    segments       groups of users as one page

Importing this package imports none of them.
"""
