"""A drop-in for sb3-contrib's TRPO."""
