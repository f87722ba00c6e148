"""From a log in any form to a data set on disk.

    sources       where bytes come from: plain, compressed, in an archive
    columns       which column is user, item, rating, time: one table of names
    log_format    separator, header and columns of a text file
    logs          a log -> events
    log_errors    which line of a file is wrong, and why
    titles        titles of items, from a table
    events        who interacted with what, and the filters
    splits/       evaluation protocols: events -> train, validation, test
    catalog       the data sets known by name
    downloads     fetching and verifying them
    synthetic     an invented film log
    dataset       the data set: in memory and on disk
    preparation   the whole way, from a name or a log to a data set
    home          the folder where data sets are kept

Nothing here needs torch. Importing this package imports none of them.
"""
