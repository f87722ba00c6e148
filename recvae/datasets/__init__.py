"""From a log in any format to a data set on disk.

    columns       which column is user, item, rating, time: one table of names
    reading/      files and tables in any form -> columns of codes, with every row accounted for
    events        the log in memory, and the filters
    logs          a log -> events
    titles        titles of items, from a table
    features      items' features: the matrix, on disk too, and how a file becomes one
    feature_tables   a table of items -> blocks of features, one for each column
    feature_kinds    what a column holds: numbers, words, lists, vectors
    feature_texts    what the texts of a column mean
    feature_arrays   embeddings in .npy and safetensors
    splits/       evaluation protocols: events -> train, validation, test
    catalog/      the data sets known by name
    downloads     downloads them and checks their hashes
    synthetic     a generated log of film ratings
    folder        the folder of a data set: files, fingerprint, damage
    shards        a matrix in several files, each with the rows of consecutive users
    streams       the training rows in shards, read block by block
    relational    the relational steps as SQL, for DuckDB and Spark
    manifests     the manifest of a split, and whether it is of this content
    dataset       the data set: in memory and on disk
    shown         what a data set shows of itself at a prompt and in a notebook
    parts         which parts a run can be trained on again
    joining       train and held-out users as one training matrix
    protocol      how a log is filtered and split by default
    made_elsewhere   splits made elsewhere: their files, and the data set of them
    preparation   all steps, from a name or a log to a data set
    home          the folder where data sets are kept

Nothing here needs torch. Importing this package imports none of them.
"""
