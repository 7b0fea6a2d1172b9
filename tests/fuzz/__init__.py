"""Fuzzing: mutated valid requests over every route of a whole application in this process."""
