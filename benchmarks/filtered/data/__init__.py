"""Where the harness gets its vectors and attributes from: made, embedded, or read from files."""
