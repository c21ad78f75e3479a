"""The write path: what fills the store, and what is built from it.

sources/      what the user named -> pictures, one after another, with their facts
pipeline.py   pictures -> faces in the store; `ahead` keeps the processes of `embedding` busy,
              `naming` and `declaring` settle what is stated of a face, `originals` copies
backfill.py   stored pictures and captions -> a face-text space that came after them
bulk/         Parquet and other systems' vectors -> the store, and back out
build.py      the store -> a snapshot: `spool` streams, `selfcheck` doubts, `publish` shows it
check.py      store against index, both ways
jobs.py       what waits in PostgreSQL; `worker` carries it out
"""
