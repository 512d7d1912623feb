"""The compiled floor: solver loops and thin bindings over csrc. Imports nothing but numpy."""
