"""Files and tables in any form -> columns of codes, ratings and times.

DuckDB reads; what a value means is decided here:

    connection     a connection to DuckDB
    options        what a user says about a table
    sources        what a user names -> files: packing, folders, globs, pipes
    streams        compressed files to their very end
    dialects       how a text file is written: encoding, separator, quotes, header
    headers        whether the first line names the columns
    separators     what separates the columns
    spool          a plain copy, for what DuckDB cannot read as it lies there
    census         one pass over the bytes: lines, and a damaged archive
    times          times in any form, as seconds
    ratings        the scale of ratings
    growing        an array whose length is not known yet
    id_column      a column of ids -> codes
    twins          ids that look alike
    memory         columns of pandas, polars, numpy and Python, as Arrow
    sql            names and paths as SQL
    relations      text files as DuckDB reads them: tables, lines, lists, JSON objects
    scans          one file as DuckDB reads it
    json_ids       what JSON objects hold where ids are expected
    by_position    the columns of a file without a header
    opening        a file or a table -> a scan
    line_numbers   the line on which a row begins
    lines          lines held against rows
    several        several files as one log
    sinks          what takes the rows
    tables         files or a table -> batches of columns
    report         what was read, guessed and left out
    log            a log -> codes, ratings, times, and a report

Every reader of users and items goes through here: logs, titles, histories, tables in Python.
"""
