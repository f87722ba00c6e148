"""Raw ids in, raw ids out.

    base            what every recommender does; needs only numpy
    recommender     a fitted model with its items
    histories       the items of users: lists, matrices, tables
    vector_index    lists of items with similar vectors, searched for high inner products
    retrieval       the best items by a search of vectors, ranked by the model's scores
    index_folder    an index on disk, put to the model whose vectors it has
    weights         the weights of a history
    id_lists        the ids of one history, as a list
    table_columns   the columns of a table of histories
    history_files   files of histories, read block by block
    answers         recommendations and explanations
    answer_files    files of recommendations; an interrupted job continues
    shown           what a recommender shows of itself at a prompt and in a notebook
    diversity       more variety in a list

Importing this package imports none of them.
"""
