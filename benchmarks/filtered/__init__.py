"""The filtered-ANN harness: any data set, filters on three axes, many engines, one table.

    data/       data sets: the face generator, text embeddings, files of other benchmarks
    workload    filters by kind, share and correlation, bound to each query
    truth       exact neighbours of every question, computed once and stored
    engines/    one adapter for each engine, Facedex and its rivals
    run         builds, tunes, and asks in interleaved rounds, each engine in a process of its own
    report      JSON lines to tables, curves and one HTML page

`values.py` holds what these pass along.
"""
