"""What the operator wants: the schema, and how it is read from files, environment and flags."""
