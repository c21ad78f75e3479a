"""The nearest faces of every face: a k-nearest-neighbour graph of all that passes a filter.

In reading order: gathering.py (which rows, and in which order), effort.py (how much has to be
looked at for a recall), making.py (`neighbours`: the graph, block by block), edges.py (graphs as
Parquet).
"""
