"""Fuzzing of all routes with mutated valid requests, in-process."""
