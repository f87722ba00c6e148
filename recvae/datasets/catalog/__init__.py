"""The data sets known by name. To add one, write an entry in the file of its field.

    entry         what is known about a data set
    converting    files that are no tables -> a plain table
    files         what a user downloaded -> its files: a folder, a zip, a tar, one file
    movielens     MovieLens, of every size
    films         Netflix Prize, Anime
    music         Million Song taste profile, Last.fm, Yambda
    books         Goodbooks-10k, Book-Crossing
    shops         Amazon Reviews 2023, RetailRocket, Steam-200k
    news          MIND
    articles      citeulike-a
    ready_made    the pairs of LightGCN: gowalla, yelp2018, amazon-book
    known         all of them by name, their files, and the counts that they must have

Addresses, sizes and terms are as we know them; an address may have moved, and only its page has the full terms.
"""
