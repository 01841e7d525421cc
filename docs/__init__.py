"""The pages of the documentation, and in `generate` what is written into them from the code."""
