"""From what the user typed to a stream of pictures: bytes and facts, lazily, in a stable order.

    folders    arguments, globs and folders -> files
    tars       one tar shard -> pictures           (webdataset, img2dataset, plain)
    records    one MXNet .rec file -> pictures     (insightface data sets)
    manifest   a CSV or Parquet table -> facts by path
    facts      what rows and sidecars say -> checked values
    listing    puts the above in a row: `list_pictures`
    pictures   the values, and `read_bytes` for the process that decodes

Whatever is wrong with one entry becomes a `Refused` with a reason, and the rest goes on.
"""
