"""PostgreSQL: the facts, the log of what changed, and everything that speaks SQL."""
