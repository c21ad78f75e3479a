"""Answers questions about faces.

The stages, in the order in which a picture passes them:

    stage      home                       gives the next one
    ---------  -------------------------  -------------------------------------------------
    image      image.py                   upright RGB pixels, within limits
    detect     models/scrfd, yunet        boxes and landmarks
    align      align.py                   112 x 112 crops
    embed      models/arcface, sface      vectors; quality.py judges them
    person     people/                    a template for all its faces; what a similarity says
    store      store/                     facts in PostgreSQL, and the log of what changed
    filter     filters/                   one WHERE expression: SQL there, a bitmap here
    index      index/                     a mapped snapshot, and what came after it
    words      captions/                  attributes as sentences, sentences as attributes
    plan       plan.py                    how to answer, and why; pure
    search     search.py                  the answer
    compose    composing.py               the answer where two indexes are asked at once
    graph      graph/                     the nearest faces of every face
    group      clusters/                  which faces belong together
    curate     curation/                  what to keep of a data set
    evaluate   evaluation/                error rates on faces whose person is known
    read       reader.py                  `Index`: a view that follows the store

`values.py` holds what the stages pass along, `fields.py` what a filter may name, `limits.py` every
limit, `errors.py` every error, `settings.py` every knob. Importing this package loads none of it.
"""
