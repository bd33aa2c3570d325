"""The rows of the table, one file per paper. Data only."""
