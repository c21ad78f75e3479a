"""The write path: sources -> pipeline -> store, bulk import and export, index building, workers.

sources/     what the user named -> pictures, one after another, with their facts
pipeline.py  pictures -> faces in the store, in batches, over several processes
bulk/        Parquet and other systems' vectors -> the store, and back out
build.py     the store -> a published snapshot
check.py     store against index, both ways
worker.py    jobs that wait in PostgreSQL
"""
