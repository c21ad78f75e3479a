"""Whole tables in and out: Parquet and other formats to the store by COPY, back by Arrow."""
