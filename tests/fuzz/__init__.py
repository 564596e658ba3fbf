"""Mutated requests and mutated answers, many of them, against a llamasup that runs."""
