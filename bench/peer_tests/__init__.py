"""Other libraries' own tests on what takes their place here."""
