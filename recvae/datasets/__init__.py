"""From a log in any format to a data set on disk.

    sources       files to read: plain, compressed, or in an archive
    columns       which column is user, item, rating, time: one table of names
    log_format    separator, header and columns of a text file
    logs          a log -> events
    log_errors    which line of a log is wrong, and why
    titles        titles of items, from a table
    events        the log in memory, and the filters
    splits/       evaluation protocols: events -> train, validation, test
    catalog       the data sets known by name
    downloads     downloads them and checks their hashes
    synthetic     a generated log of film ratings
    dataset       the data set: in memory and on disk
    preparation   all steps, from a name or a log to a data set
    home          the folder where data sets are kept

Nothing here needs torch. Importing this package imports none of them.
"""
