"""Tables of people: CSV, Parquet and Excel files as rows of cells."""
