"""Float artifact -> smaller integer or half-precision artifact, and what it lost, measured."""
